"""The subjects of `script/bench ingest`: ingest workers with their databases, and a bare subscriber."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg

from bench.filling import MESSAGES, READINGS
from bench.publisher import FLAT, VALUES
from rig import servers
from rig.serving import ROOT, CannotMeasure, Hub, databases, hub

BARE = "bare"
ENDPOINT_MESSAGES, RESOURCE_VALUES = "lwm2m_endpointmessage", "lwm2m_resourcevalue"
QUARANTINE = "devicehub_quarantine"
PROBE_SECONDS = 0.02
SILENCE_SECONDS = 30  # without a newly stored message; then the rest counts as lost


@dataclass(frozen=True)
class Size:
    """The contents of a database before the first round; each of the *stored* readings has its message."""

    name: str
    devices: int
    stored: int = 0


class Subject(Protocol):
    """A process that receives messages, its topics, and its results."""

    name: str
    pid: int
    topics: list[str]
    form: str  # of its payloads, in bench/publisher.py

    def expect(self, count: int) -> None:
        """Prepare for *count* messages."""

    def finished(self) -> float:
        """Wait until all of them are done, and return the time of the last one."""

    def outcome(self, payloads: list[bytes]) -> tuple[int, int, int]:
        """Return the numbers of stored and of lost *payloads*, and of extra rows. Raise CannotMeasure."""


class Bare:
    """The paho subscriber of bench/subscriber.py."""

    name = BARE
    form = FLAT

    def __init__(self, process: subprocess.Popen[str], topics: list[str]) -> None:
        self.pid, self.topics = process.pid, topics
        self._process = process
        self._count = 0
        self._read()  # the first line says that it is subscribed

    def expect(self, count: int) -> None:
        assert self._process.stdin is not None
        print(count, file=self._process.stdin, flush=True)
        self._count = count
        self._read()

    def finished(self) -> float:
        return float(self._read())

    def outcome(self, payloads: list[bytes]) -> tuple[int, int, int]:
        return len(payloads), 0, 0

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CannotMeasure("the bare subscriber ended unexpectedly")
        return line


class Worker:
    """`manage.py listen_mqtt` and its database."""

    messages, readings = MESSAGES, READINGS
    values = 1  # Rows of *readings* that one message makes.
    form = FLAT

    def __init__(self, made: Hub, size: Size, pid: int, log: Path, query: Callable[[str], list[Any]]) -> None:
        self.made, self.size, self.pid = made, size, pid
        self.name = f"{made.vendor}, {size.name}" if size.name else made.vendor
        self.topics = [device.topic for device in made.generated]
        self._log, self._query = log, query
        self._before: dict[str, int] = {}
        self._count = 0

    def expect(self, count: int) -> None:
        self._before = {table: self._newest(table) for table in (self.messages, self.readings, QUARANTINE)}
        self._count = count

    def finished(self) -> float:
        """Poll the newest key, which costs the database next to nothing; the rows are counted later."""
        newest, heard = self._before[self.messages], time.time()
        while newest < self._before[self.messages] + self._count:
            if time.time() > heard + SILENCE_SECONDS:
                return heard
            time.sleep(PROBE_SECONDS)
            found = self._newest(self.messages)
            if found > newest:
                newest, heard = found, time.time()
        return heard

    def outcome(self, payloads: list[bytes]) -> tuple[int, int, int]:
        found = [digest for (digest,) in self._query(self._new("digest", self.messages))]
        readings = self._query(self._new("count(*)", self.readings))[0][0]
        refused = self._query(self._new("count(*)", QUARANTINE))[0][0]
        sent = {hashlib.sha256(payload).hexdigest() for payload in payloads}
        if refused or readings != len(found) * self.values or not set(found) <= sent:
            log = self._log.read_text(errors="replace")[-2_000:]
            raise CannotMeasure(
                f"{self.name}: {len(found)} messages and {readings} readings stored, {refused} refused\n{log}"
            )
        stored = len(set(found))
        return stored, len(sent) - stored, len(found) - stored

    def filled(self) -> dict[str, Any]:
        """Return the initial contents of its database, the seconds of the filling, and its size."""
        size = {
            "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            "postgresql": "SELECT pg_database_size(current_database())",
        }[self.made.vendor]
        return {
            "subject": self.name,
            "devices": self.size.devices,
            "stored": self.size.stored,
            "seconds": self.made.seconds,
            "mib": round(self._query(size)[0][0] / 2**20, 1),
        }

    def _newest(self, table: str) -> int:
        return self._query(f"SELECT max(id) FROM {table}")[0][0] or 0

    def _new(self, columns: str, table: str) -> str:
        return f"SELECT {columns} FROM {table} WHERE id > {self._before[table]}"


class Endpoints(Worker):
    """The LwM2M endpoints of the same process and database as a *worker*; they send notifications in *form*."""

    messages, readings = ENDPOINT_MESSAGES, RESOURCE_VALUES
    values = VALUES

    def __init__(self, worker: Worker, form: str, ids: Sequence[str]) -> None:
        super().__init__(worker.made, worker.size, worker.pid, worker._log, worker._query)
        self.form = form
        self.name = f"{worker.name}, {form}"
        prefix = worker.topics[0].partition("/")[0]
        self.topics = [f"{prefix}/lwm2m/{device_id}/data" for device_id in ids]


@contextmanager
def bare(port: int, topics: list[str]) -> Iterator[Bare]:
    """Run the bare subscriber, subscribed to *topics* below a level of its own."""
    command = [sys.executable, "-m", "bench.subscriber", str(port), f"$share/{BARE}/{BARE}/#"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield Bare(process, [f"{BARE}/{topic}" for topic in topics])
    finally:
        process.kill()
        process.communicate()


@contextmanager
def worker(
    vendor: str,
    size: Size,
    count: int,
    port: int,
    folder: Path,
    settings: Sequence[str] = (),
    fill: Callable[[Hub], object] = lambda _: None,
) -> Iterator[Worker]:
    """Run a worker that is subscribed, for *count* devices. Its topics and its client id begin with its name.

    *settings* are those of PostgreSQL; *fill* adds rows to the database before the worker starts.
    """
    name = f"{vendor}-{size.name}" if size.name else vendor
    log = folder / f"listen_mqtt-{name}.log"
    with databases(vendor, folder / name, settings) as create, ExitStack() as stack:
        url = create("ingest")
        made = hub(vendor, url, count=size.devices, with_passwords=count, stored=size.stored)
        for device in made.generated:
            device.topic = f"{name}/{device.topic.partition('/')[2]}"
        fill(made)
        environment = made.environment | {
            "MQTT_URL": f"mqtt://{name}@127.0.0.1:{port}",
            "DEVICEHUB_TOPIC_PREFIX": name,
            "PYTHONUNBUFFERED": "1",
        }
        query = stack.enter_context(queries(vendor, url))
        process = stack.enter_context(
            servers.process(
                [sys.executable, "manage.py", "listen_mqtt"],
                env=environment,
                cwd=ROOT,
                log=log,
                ready=lambda: b"connected to" in log.read_bytes(),
            )
        )
        yield Worker(made, size, process.pid, log, query)


@contextmanager
def queries(vendor: str, url: str) -> Iterator[Callable[[str], list[Any]]]:
    """Yield a function that queries the database, over a connection of its own without an open transaction."""
    if vendor == "sqlite":
        file = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        try:
            yield lambda statement: file.execute(statement).fetchall()
        finally:
            file.close()
        return
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda statement: connection.execute(statement.encode()).fetchall()
