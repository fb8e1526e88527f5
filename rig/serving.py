"""What a bench asks: new databases with devices, and the project's own server in front of an application."""

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
    """Why there are no figures, in one line and what the program in question printed."""


@dataclass
class Device:
    """A device whose password is known."""

    device_id: str
    username: str
    password: str
    topic: str
    jwt: str = ""  # that stands for the password in the dialect jwt


@dataclass
class Hub:
    """A migrated database with devices, and a broker that may ask."""

    vendor: str
    version: str
    environment: dict[str, str]
    token: str
    generated: list[Device]
    imported: list[Device]
    seconds: float  # that making it took


@dataclass
class Server:
    """gunicorn, listening."""

    port: int
    pid: int

    def workers(self) -> list[int]:
        """The processes that answer. Linux only."""
        return list(placement.children(self.pid))

    def memory(self) -> list[dict[str, float | None]]:
        """The resident memory of each worker in MiB: all of its pages, and its share of them."""
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
    """A function that makes an empty database called so and returns its DATABASE_URL.

    *settings* are those of a PostgreSQL server.
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
    vendor: str, url: str, *, count: int, known: int, imported: Path | None = None, stored: int = 0
) -> Hub:
    """The database at *url* migrated and filled: *count* devices, of which *known* have known passwords.

    *stored* readings, each with its message, are there as if they had been ingested in the last year.
    """
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATABASE_URL": url,
    }
    more = [] if imported is None else ["--imported", str(imported)]
    filling = [sys.executable, "-m", "bench.devices", "--count", str(count), "--known", str(known), *more]
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
    """What it printed. Its standard error is ours, for the progress it shows."""
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CannotMeasure(f"{' '.join(command[1:4])} ended with {done.returncode}\n{done.stdout}".rstrip())
    return done.stdout


@contextmanager
def served(
    application: str, log: Path, *, environment: dict[str, str] | None = None, workers: int = 1
) -> Iterator[Server]:
    """*application* on gunicorn with the project's own configuration, from when every worker listens."""
    port = servers.free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py", "--workers", str(workers)]
    command += ["--bind", f"127.0.0.1:{port}", "--log-level", "info", application]

    def ready() -> bool:
        return log.read_bytes().count(b"ASGI server listening") >= workers

    environment = dict(os.environ) if environment is None else environment
    with servers.process(command, env=environment, log=log, ready=ready, cwd=ROOT) as process:
        yield Server(port, process.pid)


def software() -> str:
    """What serves: a figure means nothing without it."""
    parser = "C parser" if importlib.util.find_spec("gunicorn_h1c") else "Python parser"
    loop = f"uvloop {_version('uvloop')}" if importlib.util.find_spec("uvloop") else "asyncio"
    return f"gunicorn {_version('gunicorn')}, {loop}, {parser}"


def _version(package: str) -> str:
    module: Any = importlib.import_module(package)
    return str(getattr(module, "__version__", "?"))
