"""A Mosquitto with TLS, and its certificate."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rig import servers


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Return the paths of a self-signed certificate for 127.0.0.1 and of its key."""
    paths = tmp_path / "broker.crt", tmp_path / "broker.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, "-out", str(paths[0]), "-keyout", str(paths[1])], check=True, capture_output=True
    )
    return paths


@pytest.fixture
def tls_broker(
    tmp_path: Path, certificate: tuple[Path, Path], needs_real: Callable[[servers.MissingServer], None]
) -> Iterator[tuple[int, int]]:
    """Run Mosquitto and yield its ports: without TLS, and with TLS."""
    port = servers.free_port()
    more = f"listener {port} 127.0.0.1\ncertfile {certificate[0]}\nkeyfile {certificate[1]}\n"
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", more)), port
        except servers.MissingServer as missing:
            needs_real(missing)
