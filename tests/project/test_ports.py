"""The ports of the tests' servers belong to no outgoing connection and to no other process."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from rig import ports
from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only

OTHER = (
    "from rig import ports; first = ports.free_port(); print(first - (first - ports.LOWEST) % ports.BLOCK)"
)


def test_a_port_is_given_once_and_lies_below_those_of_outgoing_connections() -> None:
    given = [ports.free_port() for _ in range(2 * ports.BLOCK)]

    assert len(set(given)) == len(given)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as out,
    ):
        assert all(ports.LOWEST <= port < out.getsockname()[1] for port in given)


def test_another_process_gets_other_ports() -> None:
    ports.free_port()
    ours = {claim.getsockname() for claim in ports._claims}

    block = int(subprocess.check_output([sys.executable, "-c", OTHER], cwd=ROOT))

    assert f"\0devicehub-ports-{block}".encode() not in ours


def test_a_port_that_is_used_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        used = server.getsockname()[1]
        monkeypatch.setattr(ports, "_ports", iter([used, ports.free_port()]))

        assert ports.free_port() != used


def test_without_a_port_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_ports", iter([]))

    with pytest.raises(RuntimeError, match="is free"):
        ports.free_port()
