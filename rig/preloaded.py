"""`python manage.py` without its start: a process that has loaded Django forks for each command.

The pages show some fifty commands, and each of them would spend nearly all of its time on imports.
A command whose environment differs from that of this process runs in a Python of its own, because its settings differ.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SET_BY_OTHERS = (
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "LC_CTYPE",
)  # A shell or Python sets these; they are not settings.
LAUNCHER = """#!/bin/sh
case $1 in
    manage.py) exec {python} -IS {client} {folder} "$@" ;;
    *) exec {python} "$@" ;;
esac
"""
CLIENT = """
import json, os, socket, sys

folder, arguments = sys.argv[1], sys.argv[2:]
with open(folder + "/environment") as file:
    loaded = json.load(file)
if {name: value for name, value in os.environ.items() if name not in %(set_by_others)r} != loaded:
    os.execv(%(python)r, [%(python)r, *arguments])
with socket.socket(socket.AF_UNIX) as server:
    server.connect(folder + "/socket")
    socket.send_fds(server, [b" "], [0, 1, 2])
    server.sendall(json.dumps([os.getcwd(), arguments]).encode())
    server.shutdown(socket.SHUT_WR)
    code = server.recv(1)
sys.exit(code[0] if code else 1)
"""


@contextmanager
def commands(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield *environment* with a `python` on its path that runs `manage.py` in a fork of a loaded process."""
    client, launcher = folder / "client.py", folder / "bin" / "python"
    launcher.parent.mkdir()
    launcher.write_text(LAUNCHER.format(python=sys.executable, client=client, folder=folder))
    launcher.chmod(0o755)
    client.write_text(CLIENT % {"set_by_others": SET_BY_OTHERS, "python": sys.executable})
    environment = {**environment, "PATH": f"{launcher.parent}:{environment['PATH']}"}
    (folder / "environment").write_text(json.dumps(environment))
    server = subprocess.Popen(
        [sys.executable, "-m", "rig.preloaded", str(folder / "socket")],
        cwd=ROOT,
        env={**environment, "DJANGO_SETTINGS_MODULE": "config.settings"},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield environment
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def serve(path: str) -> None:
    """Load Django, then fork for each connection to the socket at *path*, for ever."""
    import django

    django.setup()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listening.close()
                code = run(connection)
                atexit._run_exitfuncs()
                connection.sendall(bytes([code]))
                os._exit(code)
            connection.close()


def run(connection: socket.socket) -> int:
    """Run the command that *connection* names with the files that it sends; return its exit code."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    folder, arguments = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    sys.argv = arguments
    code: object = 0
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    serve(sys.argv[1])
