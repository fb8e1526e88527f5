"""The servers and databases of a bench: new databases with devices, and an application on gunicorn."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from rig import placement, servers

ROOT = Path(__file__).resolve().parent.parent
VENDORS = ("sqlite", "postgresql")


class CannotMeasure(Exception):
    """A bench cannot measure; the message says why in one line, and then what the program printed."""


@dataclass
class Device:
    """A device with its password."""

    device_id: str
    username: str
    password: str
    topic: str
    jwt: str = ""  # the token that replaces the password in the dialect jwt


@dataclass
class Hub:
    """A migrated database with devices, and the token of a broker."""

    vendor: str
    version: str
    environment: dict[str, str]
    token: str
    generated: list[Device]
    imported: list[Device]
    seconds: float  # to create and fill it


@dataclass
class Server:
    """A gunicorn that listens on *port*."""

    port: int
    pid: int

    def workers(self) -> list[int]:
        """Return the processes that answer. Linux only."""
        return list(placement.children(self.pid))

    def memory(self) -> list[dict[str, float | None]]:
        """Return the resident memory of each worker in MiB: all pages, and its share of them."""
        return [
            {
                "rss_mib": _memory(f"/proc/{pid}/status", "VmRSS:"),
                "pss_mib": _memory(f"/proc/{pid}/smaps_rollup", "Pss:"),
            }
            for pid in self.workers()
        ]


def _memory(file: str, name: str) -> float | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith(name)), None)


@contextmanager
def databases(vendor: str, folder: Path, settings: Sequence[str] = ()) -> Iterator[Callable[[str], str]]:
    """Yield a function that creates an empty database with the given name and returns its DATABASE_URL.

    *settings* are those of the PostgreSQL server.
    """
    if vendor == "sqlite":
        yield lambda name: f"sqlite:///{folder}/{name}.sqlite3"
        return
    with servers.postgresql(folder, settings) as url:

        def create(name: str) -> str:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            return f"{url.rpartition('/')[0]}/{name}"

        yield create


def hub(
    vendor: str, url: str, *, count: int, with_passwords: int, imported: Path | None = None, stored: int = 0
) -> Hub:
    """Migrate and fill the database at *url*: *count* devices, of which *with_passwords* have passwords.

    *stored* readings, each with its message, are added as if they had been ingested in the last year.
    """
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATABASE_URL": url,
    }
    more = [] if imported is None else ["--imported", str(imported)]
    filling = [
        sys.executable,
        "-m",
        "bench.devices",
        "--count",
        str(count),
        "--with-passwords",
        str(with_passwords),
        *more,
    ]
    filling += ["--stored", str(stored)]
    made = json.loads(_run(filling, environment))
    return Hub(
        vendor,
        made["database"],
        environment,
        made["token"],
        [Device(**fields) for fields in made["generated"]],
        [Device(**fields) for fields in made["imported"]],
        made["seconds"],
    )


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Run *command* and return its output. Its standard error is ours, for its progress. Raise CannotMeasure."""
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CannotMeasure(f"{' '.join(command[1:4])} ended with {done.returncode}\n{done.stdout}".rstrip())
    return done.stdout


@contextmanager
def served(
    application: str, log: Path, *, environment: dict[str, str] | None = None, workers: int = 1
) -> Iterator[Server]:
    """Serve *application* on gunicorn with the configuration of the project; every worker listens already."""
    port = servers.free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py", "--workers", str(workers)]
    command += ["--bind", f"127.0.0.1:{port}", "--log-level", "info", application]

    def ready() -> bool:
        return log.read_bytes().count(b"ASGI server listening") >= workers

    environment = dict(os.environ) if environment is None else environment
    with servers.process(command, env=environment, log=log, ready=ready, cwd=ROOT) as process:
        yield Server(port, process.pid)


def software() -> str:
    """Return the versions of server, event loop and HTTP parser, which every figure depends on."""
    parser = "C parser" if importlib.util.find_spec("gunicorn_h1c") else "Python parser"
    loop = f"uvloop {_version('uvloop')}" if importlib.util.find_spec("uvloop") else "asyncio"
    return f"gunicorn {_version('gunicorn')}, {loop}, {parser}"


def _version(package: str) -> str:
    module: Any = importlib.import_module(package)
    return str(getattr(module, "__version__", "?"))
