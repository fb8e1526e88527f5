"""Leshan servers and clients as processes on loopback: the library's of 2.0.0-M15, and the demo server 2.0.0-M4.

Each runs in the folder of its logs: Californium writes its properties into the working directory.
"""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rig import servers
from rig.leshan import jars

# Small and quick to start: each runs for seconds.
OPTIONS = ("-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.net.preferIPv4Stack=true")


class Server(servers.Restartable):
    """A Leshan server: *url* is that of its API, *port* that of CoAP. It keeps both over restarts, and nothing else."""

    def __init__(self, folder: Path, *, awake: float = 93) -> None:
        """Prepare the server of the library; clients in queue mode are *awake* for so many seconds."""
        self._folder = folder
        self.port, http = _udp_port(), servers.free_port()
        self.url = f"http://127.0.0.1:{http}"
        self._command = [
            "-cp",
            jars.classpath(),
            "LibraryServer",
            str(self.port),
            str(http),
            str(int(awake * 1000)),
        ]
        self._starts = 0
        super().__init__(self._process)

    @contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        self._starts += 1
        log = self._folder / f"server-{self._starts}.log"
        with servers.process(
            [jars.java(), *OPTIONS, *self._command],
            env=_environment(),
            log=log,
            ready=self._is_ready,
            cwd=self._folder,
        ) as process:
            yield process

    def _is_ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/api/clients", timeout=2) as answer:
            return bool(answer.status == 200)


class DemoServer(Server):
    """The demo server 2.0.0-M4."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, secure, http = _udp_port(), _udp_port(), servers.free_port()
        self.url = f"http://127.0.0.1:{http}"
        self._command = ["--add-opens", "java.base/java.util=ALL-UNNAMED", "-jar", str(jars.demo_server())]
        for name, value in {"l": self.port, "sl": secure, "w": http}.items():
            self._command += [f"-{name}h", "127.0.0.1", f"-{name}p", str(value)]
        self._starts = 0
        servers.Restartable.__init__(self, self._process)


class Client:
    """A client of the library, which takes commands; its log names each of its registrations."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: TextIO, log: Path) -> None:
        self._process = process
        self._pipe = pipe
        self._log = log

    def tell(self, command: str) -> None:
        """Send a command, such as `temperature 21.5`."""
        self._pipe.write(f"{command}\n")
        self._pipe.flush()

    def kill(self) -> None:
        """End the client without a word to its server."""
        self._process.kill()
        self._process.wait(servers.STOP_SECONDS)

    @property
    def registrations(self) -> int:
        """The number of its registrations so far."""
        return self._log.read_text().count("registered ")


@contextmanager
def client(
    folder: Path, name: str, port: int, *, lifetime: int = 60, period: int = 30, queue_mode: bool = False
) -> Iterator[Client]:
    """Run a client of the server at CoAP *port*, which updates its registration every *period* seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "commands", folder / "client.log"
    os.mkfifo(path)
    command = [jars.java(), *OPTIONS, "-cp", jars.classpath(), "ScriptedClient", str(path), name, str(port)]
    command += [str(lifetime), str(period), *(["queue"] if queue_mode else [])]
    # Opened for both directions, so that the call does not wait for the client.
    with (
        os.fdopen(os.open(path, os.O_RDWR), "w") as pipe,
        servers.process(
            command,
            env=_environment(),
            log=log,
            ready=lambda: "registered " in log.read_text(),
            cwd=folder,
        ) as process,
    ):
        yield Client(process, pipe, log)


def _udp_port() -> int:
    """Return a port; one that is free for TCP is most likely free for UDP."""
    return servers.free_port()


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home()), "LANG": "C.UTF-8"}
