"""`script/bench ingest`: messages through a broker into the database, beside a subscriber that only acknowledges.

One mosquitto for all, MQTT 5, QoS 1, the same publishers and receive maximum. All workers run at once, each has
topics of its own, and one of them is published to at a time. A round is over when everything that was sent is
stored, and then all of it is looked up: what counts is a message in the table, not an acknowledgement.
With --fleet or --stored each kind of database comes in two sizes, whose rounds are compared one by one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt
import psycopg
from rich.console import Console
from rich.table import Table

from bench import apart, publisher, terminal
from bench.auth import show_targets, shown
from bench.serving import ROOT, CannotMeasure, Hub, databases, hub
from tests import servers

CONNECTIONS = 8  # that the fleet publishes over
WARM_UP = 2_000  # messages at least, and one of each device: its pages are then in memory, and it is online
PROBE_SECONDS = 0.02
SILENCE_SECONDS = 30  # without a further message stored, after which the rest is called lost
TARGETS = {"postgresql": 0.50, "sqlite": 0.40}
GROWTH = 1.3  # times slower in the large database, at most
BARE, LARGE = "bare", "large"
BYTES = {"stored": 1_000, "devices": 1_500, "log": 3_000_000_000}  # on disk, while a large database is filled
# The broker must keep what a slow worker has not taken yet: by default it drops what is beyond 1,000 messages.
MOSQUITTO = "max_queued_messages 0\n"
MESSAGES, READINGS, QUARANTINE = (
    "fleet_weatherstationmessage",
    "fleet_weatherstationreading",
    "devicehub_quarantine",
)
TICKS = os.sysconf("SC_CLK_TCK")

HEADINGS = {
    "subject": "what",
    "per_second": "per s",
    "rate_ratio": "/ bare",
    "growth": "slower",
    "cpu_per_10000": "CPU s / 10,000",
    "peak_mib": "peak MiB",
    "sent": "sent",
    "stored": "stored",
    "lost": "lost",
    "duplicated": "twice",
}


@dataclass
class Round:
    """What became of the messages of one round, how fast, and for how much CPU time of the process."""

    sent: int
    stored: int
    lost: int
    duplicated: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.sent / self.seconds


@dataclass(frozen=True)
class Size:
    """What a database holds before it is measured; each of the *stored* readings has its message."""

    name: str
    devices: int
    stored: int = 0


class Subject(Protocol):
    """Who is published to: a process, its topics, and how to see what it has done."""

    name: str
    pid: int
    topics: list[str]

    def expect(self, count: int) -> None:
        """So many messages will come."""

    def finished(self) -> float:
        """Wait until it is done with them; when that was."""

    def outcome(self, payloads: list[bytes]) -> tuple[int, int, int]:
        """How many of them it has, how many it has not, and how many rows are too many."""


class Bare:
    """The paho subscriber of bench/subscriber.py."""

    name = BARE

    def __init__(self, process: subprocess.Popen[str], topics: list[str]) -> None:
        self.pid, self.topics = process.pid, topics
        self._process = process
        self._count = 0
        self._read()  # it is subscribed

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
            raise CannotMeasure("the bare subscriber ended")
        return line


class Worker:
    """`manage.py listen_mqtt` and its database."""

    def __init__(self, made: Hub, size: Size, pid: int, log: Path, query: Callable[[str], list[Any]]) -> None:
        self.made, self.size, self.pid = made, size, pid
        self.name = f"{made.vendor}, {size.name}" if size.name else made.vendor
        self.topics = [device.topic for device in made.generated]
        self._log, self._query = log, query
        self._before: dict[str, int] = {}
        self._count = 0

    def expect(self, count: int) -> None:
        self._before = {table: self._newest(table) for table in (MESSAGES, READINGS, QUARANTINE)}
        self._count = count

    def finished(self) -> float:
        """The newest key is looked up, which costs the database next to nothing; the rows are counted later."""
        newest, heard = self._before[MESSAGES], time.time()
        while newest < self._before[MESSAGES] + self._count:
            if time.time() > heard + SILENCE_SECONDS:
                return heard
            time.sleep(PROBE_SECONDS)
            found = self._newest(MESSAGES)
            if found > newest:
                newest, heard = found, time.time()
        return heard

    def outcome(self, payloads: list[bytes]) -> tuple[int, int, int]:
        found = [digest for (digest,) in self._query(self._new("digest", MESSAGES))]
        readings = self._query(self._new("count(*)", READINGS))[0][0]
        refused = self._query(self._new("count(*)", QUARANTINE))[0][0]
        sent = {hashlib.sha256(payload).hexdigest() for payload in payloads}
        if refused or readings != len(found) or not set(found) <= sent:
            log = self._log.read_text(errors="replace")[-2_000:]
            raise CannotMeasure(
                f"{self.name}: {len(found)} messages and {readings} readings stored, {refused} refused\n{log}"
            )
        stored = len(set(found))
        return stored, len(sent) - stored, len(found) - stored

    def filled(self) -> dict[str, Any]:
        """What its database held when it was made, how long that took, and how large it is."""
        size = {
            "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            "postgresql": "SELECT pg_database_size(current_database())",
        }[self.made.vendor]
        return {
            "subject": self.name,
            "devices": self.size.devices,
            "stored": self.size.stored,
            "seconds": self.made.seconds,
            "mib": round(self._query(size)[0][0] / 2**20),
        }

    def _newest(self, table: str) -> int:
        return self._query(f"SELECT max(id) FROM {table}")[0][0] or 0

    def _new(self, what: str, table: str) -> str:
        return f"SELECT {what} FROM {table} WHERE id > {self._before[table]}"


def run(
    *,
    vendors: Sequence[str],
    count: int,
    messages: int,
    rounds: int,
    fleet: int | None = None,
    stored: int | None = None,
) -> dict[str, Any]:
    """The report. Raises CannotMeasure."""
    sizes = _sizes(count, fleet, stored)
    with tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        _check_space(folder, len(vendors), sizes[1:])
        port = stack.enter_context(servers.mosquitto(folder, MOSQUITTO))
        workers = [
            stack.enter_context(_worker(vendor, size, count, port, folder))
            for vendor in vendors
            for size in sizes
        ]
        bare = stack.enter_context(_bare(port, [topic.partition("/")[2] for topic in workers[0].topics]))
        subjects: list[Subject] = [bare, *workers]
        filled = [worker.filled() for worker in workers if worker.size.name]
        for subject in subjects:
            _round(subject, port, max(WARM_UP, count))
        results = _measure(subjects, port, messages, rounds)
        peaks = {subject.name: _peak(subject.pid) for subject in subjects}
    rows = _rows(results, peaks)
    targets = _targets(rows)
    return {
        "client": _software(),
        "databases": list(dict.fromkeys(worker.made.version for worker in workers)),
        "devices": count,
        "connections": CONNECTIONS,
        "messages": messages,
        "rounds": rounds,
        "filled": filled,
        "rows": rows,
        "single_rounds": {name: [asdict(one) for one in measured] for name, measured in results.items()},
        "targets": targets,
        "met": all(target["met"] for target in targets),
    }


def _sizes(count: int, fleet: int | None, stored: int | None) -> list[Size]:
    """Those that each kind of database comes in."""
    if fleet is None and stored is None:
        return [Size("", count)]
    if fleet is not None and fleet < count:
        raise CannotMeasure(f"--fleet {fleet} is less than the {count} devices that publish (--devices)")
    return [Size("", count), Size(LARGE, fleet or count, stored or 0)]


def _check_space(folder: Path, databases: int, sizes: Sequence[Size]) -> None:
    each = sum(s.stored * BYTES["stored"] + s.devices * BYTES["devices"] + BYTES["log"] for s in sizes)
    free = shutil.disk_usage(folder).free
    if free < each * databases:
        raise CannotMeasure(
            f"needs {each * databases / 1e9:.0f} GB in {folder.parent}, where {free / 1e9:.0f} are free"
        )


@contextmanager
def _bare(port: int, topics: list[str]) -> Iterator[Bare]:
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
def _worker(vendor: str, size: Size, count: int, port: int, folder: Path) -> Iterator[Worker]:
    """A worker that is subscribed. Its topics begin with a name of its own, and so does its client id."""
    name = f"{vendor}-{size.name}" if size.name else vendor
    log = folder / f"listen_mqtt-{name}.log"
    with databases(vendor, folder / name) as create, ExitStack() as stack:
        url = create("ingest")
        made = hub(vendor, url, count=size.devices, known=count, stored=size.stored)
        for device in made.generated:
            device.topic = f"{name}/{device.topic.partition('/')[2]}"
        environment = made.environment | {
            "MQTT_URL": f"mqtt://{name}@127.0.0.1:{port}",
            "DEVICEHUB_TOPIC_PREFIX": name,
            "PYTHONUNBUFFERED": "1",
        }
        query = stack.enter_context(_queries(vendor, url))
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
def _queries(vendor: str, url: str) -> Iterator[Callable[[str], list[Any]]]:
    """A function that asks the database, over a connection of its own that keeps no transaction open."""
    if vendor == "sqlite":
        file = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        try:
            yield lambda statement: file.execute(statement).fetchall()
        finally:
            file.close()
        return
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda statement: connection.execute(statement.encode()).fetchall()


def _measure(subjects: list[Subject], port: int, messages: int, rounds: int) -> dict[str, list[Round]]:
    results: dict[str, list[Round]] = defaultdict(list)
    steps = [
        subject
        for number in range(rounds)
        for subject in subjects[number % len(subjects) :] + subjects[: number % len(subjects)]
    ]
    with terminal.progress() as progress:
        for subject in progress.track(steps, description="ingest"):
            results[subject.name].append(_round(subject, port, messages))
    return results


def _round(subject: Subject, port: int, messages: int) -> Round:
    begin = time.time() - 60
    subject.expect(messages)
    before = _cpu(subject.pid)
    began = _published(port, subject.topics, begin, messages)
    ended = subject.finished()
    cpu = _cpu(subject.pid) - before
    stored, lost, duplicated = subject.outcome(publisher.payloads(begin, messages))
    return Round(messages, stored, lost, duplicated, ended - began, cpu)


def _published(port: int, topics: list[str], begin: float, count: int) -> float:
    """Publish from a process of its own, which begins at the time returned; it may end before its messages are."""
    failed = "Not everything was published"
    report = apart.call(
        "bench.publisher",
        failed,
        port=port,
        connections=CONNECTIONS,
        topics=topics,
        begin=begin,
        count=count,
    )
    return float(report["began"])


def _cpu(pid: int) -> float:
    """Seconds of CPU time that a process used so far, all threads and the kernel's work for it. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _peak(pid: int) -> float:
    """The most memory a process had resident, in MiB. Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise CannotMeasure(f"process {pid} has ended")


def _rows(results: dict[str, list[Round]], peaks: dict[str, float]) -> list[dict[str, Any]]:
    reference = statistics.median(one.rate for one in results[BARE])
    return [
        {
            "subject": name,
            "per_second": round(statistics.median(one.rate for one in measured)),
            "rate_ratio": round(statistics.median(one.rate for one in measured) / reference, 3),
            "growth": _growth(results, name),
            "cpu_per_10000": round(statistics.median(one.cpu / one.sent for one in measured) * 10_000, 2),
            "peak_mib": peaks[name],
            **{
                key: sum(getattr(one, key) for one in measured)
                for key in ("sent", "stored", "lost", "duplicated")
            },
        }
        for name, measured in results.items()
    ]


def _growth(results: dict[str, list[Round]], name: str) -> float | None:
    """How many times slower than in the small database: the median of the rounds, each beside its neighbour."""
    small, _, size = name.partition(", ")
    if not size:
        return None
    pairs = zip(results[small], results[name], strict=True)
    return round(statistics.median(one.rate / other.rate for one, other in pairs), 3)


def _targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = [row for row in rows if row["subject"] != BARE]
    targets = [
        {
            "target": f"messages per second on {row['subject']} at least {TARGETS[row['subject']]:.0%} of bare",
            "worst": row["rate_ratio"],
            "met": row["rate_ratio"] >= TARGETS[row["subject"]],
        }
        for row in ours
        if row["growth"] is None
    ]
    targets += [
        {
            "target": f"{row['subject']} at most {GROWTH} times slower than small",
            "worst": row["growth"],
            "met": row["growth"] <= GROWTH,
        }
        for row in ours
        if row["growth"] is not None
    ]
    wrong = max(row["lost"] + row["duplicated"] for row in ours)
    return [*targets, {"target": "nothing lost, nothing stored twice", "worst": wrong, "met": wrong == 0}]


def _software() -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Python {python}, paho-mqtt {paho.mqtt.__version__}, {os.cpu_count()} cores"


def show(report: dict[str, Any]) -> None:
    console = Console()
    console.print(f"{report['client']}; {', '.join(report['databases'])}", highlight=False)
    for made in report["filled"]:
        console.print(
            f"{made['subject']}: {made['devices']:,} devices, {made['stored']:,} readings and messages,"
            f" filled in {made['seconds']:,.0f} s, {made['mib']:,} MiB",
            highlight=False,
        )
    title = (
        f"QoS 1 of {report['devices']:,} devices over {report['connections']} connections into one worker: "
        f"medians of {report['rounds']} rounds of {report['messages']:,} messages"
    )
    table = Table(
        title=title, caption="bare: a subscriber that only acknowledges", box=None, padding=(0, 1, 0, 0)
    )
    for name, heading in HEADINGS.items():
        table.add_column(heading, justify="left" if name == "subject" else "right", no_wrap=True)
    for row in report["rows"]:
        table.add_row(*(shown(row[name]) for name in HEADINGS))
    console.print(table)
    show_targets(console, report)
