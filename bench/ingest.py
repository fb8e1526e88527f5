"""`script/bench ingest`: messages through a broker into the database, beside a subscriber that only acknowledges.

All use one Mosquitto, MQTT 5, QoS 1, the same publishers and the same receive maximum. All workers run at once, each
with its own topics, and the fleet publishes to one of them at a time. A round ends when all messages are stored; then
each is looked up, because a message counts when it is in the table, not when it is acknowledged.
With --fleet or --stored there is a small and a large database of each kind, whose rounds are compared one by one.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import paho.mqtt
from rich.table import Table

from bench import apart, figures, publisher, subjects, terminal
from bench.subjects import BARE, Size, Subject
from bench.terminal import format_value, show_targets
from rig import servers
from rig.serving import CannotMeasure

CONNECTIONS = 8  # of the fleet to the broker
WARM_UP = 2_000  # messages at least, and one of each device, so that its pages are in memory and it is online
TARGETS = {"postgresql": 0.50, "sqlite": 0.40}
GROWTH = 1.3  # times slower in the large database, at most
LARGE = "large"
# On disk during the filling of a large database.
BYTES = {"stored": 1_000, "devices": 1_500, "log": 8_000_000_000}
# The settings of PostgreSQL for a million devices, also for the small database beside a large one.
SERVER = ("shared_buffers=2GB", "max_wal_size=8GB", "checkpoint_timeout=15min")
# The queue of a slow worker must keep all messages: by default the broker drops those beyond 1,000.
MOSQUITTO = "max_queued_messages 0\n"
TICKS = os.sysconf("SC_CLK_TCK")

HEADINGS = {
    "subject": "what",
    "publishing": "of\ndevices",
    "per_second": "per s",
    "rate_ratio": "/ bare",
    "growth": "slower",
    "cpu_per_10000": "CPU s /\n10,000",
    "peak_mib": "peak\nMiB",
    "sent": "sent",
    "lost": "lost",
    "duplicated": "twice",
}

TITLE = "Ingest"
COLUMNS = {
    "subject": "what",
    "publishing": "devices that publish",
    "per_second": "messages per second",
    "rate_ratio": "of the bare rate",
    "growth": "times slower than the small database",
    "cpu_per_10000": "CPU seconds per 10,000",
    "peak_mib": "peak memory, MiB",
    "sent": "sent",
    "lost": "lost",
    "duplicated": "stored twice",
}
REFERENCE = """\
The reference, *bare*, is a paho subscriber on the same broker that acknowledges each message and stores nothing.
QoS 1 over {connections} connections, one worker for each database, measured in turn; \
medians of {rounds} rounds of {messages:,} messages.
Each message is stored as a reading, a raw message and a change of its device, and looked up afterwards."""
FILLED = {
    "subject": "large database",
    "devices": "devices in the table",
    "stored": "readings, and as many messages, before",
    "seconds": "seconds to fill it",
    "mib": "size, MiB",
}


@dataclass
class Round:
    """The fate of the messages of one round, its seconds, and the CPU time of the process."""

    sent: int
    stored: int
    lost: int
    duplicated: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.sent / self.seconds


Results = dict[tuple[str, int], list[Round]]  # by subject and devices that publish


def run(
    *,
    vendors: Sequence[str],
    counts: Sequence[int],
    messages: int,
    rounds: int,
    fleet: int | None = None,
    stored: int | None = None,
) -> dict[str, Any]:
    """Run the bench and return its report; *counts* are the devices that publish. Raise CannotMeasure."""
    sizes = _sizes(max(counts), fleet, stored)
    settings = SERVER if len(sizes) > 1 and "postgresql" in vendors else ()
    with tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        _check_space(folder, len(vendors), sizes[1:])
        port = stack.enter_context(servers.mosquitto(folder, MOSQUITTO))
        workers = [
            stack.enter_context(subjects.worker(vendor, size, max(counts), port, folder, settings))
            for vendor in vendors
            for size in sizes
        ]
        topics = [topic.partition("/")[2] for topic in workers[0].topics]
        everyone: list[Subject] = [stack.enter_context(subjects.bare(port, topics)), *workers]
        before = {
            "client": f"paho-mqtt {paho.mqtt.__version__}",
            "databases": list(dict.fromkeys(worker.made.version for worker in workers)),
            "settings": settings,
            "connections": CONNECTIONS,
            "messages": messages,
            "rounds": rounds,
            "filled": [worker.filled() for worker in workers if worker.size.name],
        }
        for subject in everyone:
            one_round(subject, subject.topics, port, max(WARM_UP, *counts))
        results = _measure(everyone, counts, port, messages, rounds)
        peaks = {subject.name: _peak(subject.pid) for subject in everyone}
    return before | _measured(results, peaks)


def _measured(results: Results, peaks: dict[str, float]) -> dict[str, Any]:
    """Return the part of a report about the rounds."""
    rows = _rows(results, peaks)
    targets = _targets(rows)
    return {
        "rows": rows,
        "single_rounds": [
            {"subject": name, "publishing": count, "rounds": [asdict(one) for one in measured]}
            for (name, count), measured in results.items()
        ],
        "targets": targets,
        "met": all(target["met"] for target in targets),
    }


def _sizes(count: int, fleet: int | None, stored: int | None) -> list[Size]:
    """Return the sizes of the databases of each kind. Raise CannotMeasure."""
    if fleet is None and stored is None:
        return [Size("", count)]
    if fleet is not None and fleet < count:
        raise CannotMeasure(f"--fleet {fleet} is less than the {count} devices that publish (--devices)")
    return [Size("", count), Size(LARGE, fleet or count, stored or 0)]


def _check_space(folder: Path, databases: int, sizes: Sequence[Size]) -> None:
    each = sum(s.stored * BYTES["stored"] + s.devices * BYTES["devices"] + BYTES["log"] for s in sizes)
    needed, free = each * databases / 1e9, shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise CannotMeasure(f"needs {needed:.0f} GB of disk in {folder.parent}, where {free:.0f} GB are free")


def _measure(
    everyone: list[Subject], counts: Sequence[int], port: int, messages: int, rounds: int
) -> Results:
    results: Results = defaultdict(list)
    steps = [
        (subject, count)
        for number in range(rounds)
        for count in counts
        for subject in everyone[number % len(everyone) :] + everyone[: number % len(everyone)]
    ]
    with terminal.progress() as progress:
        for subject, count in progress.track(steps, description="ingest"):
            results[subject.name, count].append(one_round(subject, subject.topics[:count], port, messages))
    return results


def one_round(subject: Subject, topics: list[str], port: int, messages: int) -> Round:
    """Publish *messages* on *topics*, wait until *subject* has finished them, and return their fate."""
    begin = time.time() - 60
    subject.expect(messages)
    before = _cpu(subject.pid)
    began = _published(port, topics, begin, messages, subject.form)
    ended = subject.finished()
    cpu = _cpu(subject.pid) - before
    stored, lost, duplicated = subject.outcome(publisher.payloads(begin, messages, subject.form))
    return Round(messages, stored, lost, duplicated, ended - began, cpu)


def _published(port: int, topics: list[str], begin: float, count: int, form: str) -> float:
    """Publish from a process of its own, and return the time of its first message."""
    failed = "not all messages were published"
    report = apart.call(
        "bench.publisher",
        failed,
        port=port,
        connections=CONNECTIONS,
        topics=topics,
        begin=begin,
        count=count,
        form=form,
    )
    return float(report["began"])


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process so far, of all threads and of the kernel for it. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _peak(pid: int) -> float:
    """Return the peak of the resident memory of a process in MiB. Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise CannotMeasure(f"process {pid} has ended")


def _rows(results: Results, peaks: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "subject": name,
            "publishing": count,
            "per_second": round(_rate(measured)),
            "rate_ratio": round(_rate(measured) / _rate(results[BARE, count]), 3),
            "growth": _growth(results, name, count),
            "cpu_per_10000": round(statistics.median(one.cpu / one.sent for one in measured) * 10_000, 2),
            "peak_mib": peaks[name],
            **{
                key: sum(getattr(one, key) for one in measured)
                for key in ("sent", "stored", "lost", "duplicated")
            },
        }
        for (name, count), measured in results.items()
    ]


def _rate(measured: list[Round]) -> float:
    return statistics.median(one.rate for one in measured)


def _growth(results: Results, name: str, count: int) -> float | None:
    """Return the median over the rounds of how many times slower the large database is than the small one."""
    small, _, size = name.partition(", ")
    if not size:
        return None
    pairs = zip(results[small, count], results[name, count], strict=True)
    return round(statistics.median(one.rate / other.rate for one, other in pairs), 3)


def _targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    targets = []
    for row in rows:
        of = f"of {row['publishing']:,} devices on {row['subject']}"
        if row["growth"] is not None:
            worst = row["growth"]
            target = f"messages {of} at most {GROWTH} times slower than on the small one"
            targets.append({"target": target, "worst": worst, "met": worst <= GROWTH})
        elif row["subject"] != BARE:
            least, worst = TARGETS[row["subject"]], row["rate_ratio"]
            target = f"messages per second {of} at least {least:.0%} of bare"
            targets.append({"target": target, "worst": worst, "met": worst >= least})
    wrong = max(row["lost"] + row["duplicated"] for row in rows)
    return [*targets, {"target": "nothing lost, nothing stored twice", "worst": wrong, "met": wrong == 0}]


def show(report: dict[str, Any]) -> None:
    """Print *report*."""
    console = terminal.screen()
    console.print(f"{report['client']}; {', '.join(report['databases'])}", highlight=False)
    for made in report["filled"]:
        console.print(
            f"{made['subject']}: {made['devices']:,} devices, {made['stored']:,} readings and messages,"
            f" filled in {made['seconds']:,.0f} s, {made['mib']:,} MiB",
            highlight=False,
        )
    if report["settings"]:
        console.print(f"PostgreSQL with {', '.join(report['settings'])}", highlight=False)
    title = (
        f"QoS 1 over {report['connections']} connections into one worker: "
        f"medians of {report['rounds']} rounds of {report['messages']:,} messages"
    )
    table = Table(
        title=title, caption="bare: a subscriber that only acknowledges", box=None, padding=(0, 1, 0, 0)
    )
    for name, heading in HEADINGS.items():
        table.add_column(heading, justify="left" if name == "subject" else "right", no_wrap=True)
    for row in report["rows"]:
        table.add_row(*(format_value(row[name]) for name in HEADINGS))
    console.print(table)
    show_targets(console, report)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the reference and the tables of *report* for docs/figures.md."""
    blocks = [REFERENCE.format(**report)]
    if report["settings"]:
        blocks.append(f"PostgreSQL runs with {', '.join(report['settings'])}.")
    if report["filled"]:
        blocks.append(figures.table(FILLED, report["filled"]))
    return [*blocks, figures.table(COLUMNS, report["rows"])]
