"""`script/bench auth`: answers to brokers beside a bare application on the same server, loop and parser.

All servers run at once and are measured in turn. Each round begins with another server, so that a busy machine
slows all of them alike; the results are ratios of medians over the rounds.
"""

from __future__ import annotations

import random
import re
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bench import devices, figures, load, questions, terminal
from bench.terminal import format_value, show_targets
from rig import placement
from rig.servers import wrk
from rig.serving import CannotMeasure, Hub, Server, databases, hub, served, software

PASSWORDS = 1_000  # devices in the questions, of any number in the table
WARM_UP_CONNECTIONS = 4
COLD = "acl, cold"
MEDIAN, RATE, GROWTH, MEMORY = 1.7, 0.55, 1.2, 400
TARGETS = {
    "median": f"median at 1 connection at most {MEDIAN} times bare",
    "rate": f"answers per second at more connections at least {RATE:.0%} of bare",
    "growth": f"median at most {GROWTH} times the one with the fewest devices",
    "memory": f"at most {MEMORY} MiB resident per worker",
}


HEADINGS = {
    "question": "question",
    "connections": "conn.",
    "database": "database",
    "devices": "devices",
    "median_us": "us",
    "median_ratio": "/ bare",
    "growth": "/ few",
    "p99_us": "p99 us",
    "per_second": "per s",
    "rate_ratio": "/ bare",
}

CAPTION = "/ bare, / few: divided by the figure of the bare application, and by that with the fewest devices"

TITLE = "Answers to brokers"
COLUMNS = {
    "question": "question",
    "connections": "connections",
    "database": "database",
    "devices": "devices in the table",
    "median_us": "median, µs",
    "median_ratio": "times bare",
    "growth": "times fewest devices",
    "p99_us": "99 %, µs",
    "per_second": "answers per second",
    "rate_ratio": "of the bare rate",
}
REFERENCE = """\
The reference, *bare*, is an application on the same server, loop and parser that reads the body and answers a constant.
Servers are measured in turn, one worker each; medians of {rounds} rounds of {seconds} s.
Questions called *cold* are about devices that the worker has not cached; they have no target."""
RESIDENT = {
    "database": "database",
    "devices": "devices in the table",
    "rss_mib": "resident memory of the worker, MiB",
}


@dataclass(frozen=True)
class Subject:
    """A server with its questions: its place in the report, and the requests of wrk."""

    database: str
    devices: int | None
    question: str
    port: int
    requests: list[str]
    cold: tuple[str, int] | None = None  # for questions about all devices at random: one id, and their number

    @property
    def key(self) -> tuple[str, int | None, str]:
        return self.database, self.devices, self.question

    def script(self) -> str:
        """Return the Lua script of wrk."""
        if self.cold is None:
            return questions.in_turn(self.requests)
        device_id, count = self.cold
        template = devices.DEVICE_ID.replace("{:07d}", "%07d")
        return questions.at_random(self.requests[0], device_id, template, count, random.randrange(2**31))


@dataclass
class Measured:
    """One round of wrk: median and 99th percentile in microseconds, and answers per second."""

    median: float
    p99: float
    rate: float


Results = dict[tuple[tuple[str, int | None, str], int], list[Measured]]


def run(
    *,
    vendors: Sequence[str],
    counts: Sequence[int],
    connections: Sequence[int],
    seconds: int,
    rounds: int,
    dialects: Sequence[str],
) -> dict[str, Any]:
    """Run the bench with questions in *dialects*, and return its report. Raise CannotMeasure."""
    program = wrk()
    with tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        hubs: dict[tuple[str, int], Hub] = {}
        for vendor in vendors:
            create = stack.enter_context(databases(vendor, folder))
            for count in counts:
                hubs[vendor, count] = hub(
                    vendor, create(f"devices_{count}"), count=count, with_passwords=PASSWORDS
                )
        bare = stack.enter_context(served("bench.bare:application", folder / "bare.log"))
        ours = {
            (vendor, count): stack.enter_context(
                served(
                    "config.asgi:application",
                    folder / f"{vendor}-{count}.log",
                    environment=made.environment,
                )
            )
            for (vendor, count), made in hubs.items()
        }
        subjects = _subjects(bare, ours, hubs, dialects)
        for subject in subjects:  # warm up imports, connections and caches with each device
            load.storms(subject.port, WARM_UP_CONNECTIONS, [subject.requests])
        workers = {pid for server in (bare, *ours.values()) for pid in server.workers()}
        results = _measure(program, subjects, workers, connections, seconds, rounds, folder)
        memory = [
            {"database": vendor, "devices": count, **worker}
            for (vendor, count), server in ours.items()
            for worker in server.memory()
        ]
    rows = _rows(results)
    targets = _targets(rows, memory)
    return {
        "server": software(),
        "databases": sorted({made.version for made in hubs.values()}),
        "cores": placement.describe(),
        "seconds": seconds,
        "rounds": rounds,
        "rows": rows,
        "memory": memory,
        "targets": targets,
        "met": all(target["met"] for target in targets),
    }


def _subjects(
    bare: Server,
    ours: dict[tuple[str, int], Server],
    hubs: dict[tuple[str, int], Hub],
    dialects: Sequence[str],
) -> list[Subject]:
    """Return, for each question, the bare application and then our servers; only tokens and ids differ."""
    subjects = []
    makers = {name: make for dialect in dialects for name, make in questions.of_dialect(dialect).items()}
    for question, make in makers.items():
        for number, ((vendor, count), made) in enumerate(hubs.items()):
            requests = [make(made.token, device) for device in made.generated]
            if number == 0:
                subjects.append(Subject("bare", None, question, bare.port, requests))
            subjects.append(Subject(vendor, count, question, ours[vendor, count].port, requests))
    largest = max(count for _, count in hubs)
    for (vendor, count), made in hubs.items():
        if count == largest and "acl" in makers:
            device = made.generated[0]
            request = questions.acl(made.token, device)
            cold = (device.device_id, count)
            subjects.append(Subject(vendor, count, COLD, ours[vendor, count].port, [request], cold))
    return subjects


def _measure(
    program: str,
    subjects: list[Subject],
    workers: set[int],
    connections: Sequence[int],
    seconds: int,
    rounds: int,
    folder: Path,
) -> Results:
    results: Results = defaultdict(list)
    steps = []
    for number in range(rounds):
        turned = subjects[number % len(subjects) :] + subjects[: number % len(subjects)]
        steps += [(subject, many) for many in connections for subject in turned]
    with terminal.progress() as progress:
        for subject, many in progress.track(steps, description="auth"):
            if subject.cold is None or many == min(connections):
                placement.place(workers, together=many == 1)
                results[subject.key, many].append(_run_wrk(program, subject, many, seconds, folder))
    return results


def _run_wrk(program: str, subject: Subject, connections: int, seconds: int, folder: Path) -> Measured:
    script = folder / "questions.lua"
    script.write_text(subject.script())
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    command = [*placement.beside(together=connections == 1), program, *options]
    url = f"http://127.0.0.1:{subject.port}/"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    if done.returncode or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise CannotMeasure(f"wrong answers to {subject.key}:\n{done.stdout}{done.stderr}")
    return read(done.stdout)


def read(printed: str) -> Measured:
    """Return the figures that `wrk --latency` printed. Raise CannotMeasure."""
    percentiles = {
        name: float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
        for name, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)\b", printed)
    }
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    if len(percentiles) != 2 or rate is None:
        raise CannotMeasure(f"the output of wrk has an unexpected form:\n{printed}")
    return Measured(percentiles["50"], percentiles["99"], float(rate[1]))


def _rows(results: Results) -> list[dict[str, Any]]:
    middle = {
        key: Measured(
            statistics.median(m.median for m in measured),
            statistics.median(m.p99 for m in measured),
            statistics.median(m.rate for m in measured),
        )
        for key, measured in results.items()
    }
    fewest = min(count for (_, count, _), _ in middle if count is not None)
    rows = []
    for ((database, count, question), connections), measured in middle.items():
        reference = middle[("bare", None, question.partition(",")[0]), connections]
        few = middle.get(((database, fewest, question), connections)) if count != fewest else None
        rows.append(
            {
                "database": database,
                "devices": count,
                "question": question,
                "connections": connections,
                "median_us": round(measured.median, 1),
                "p99_us": round(measured.p99, 1),
                "per_second": round(measured.rate),
                "median_ratio": round(measured.median / reference.median, 2),
                "rate_ratio": round(measured.rate / reference.rate, 2),
                "growth": round(measured.median / few.median, 2) if few and count else None,
            }
        )
    return sorted(rows, key=lambda row: (row["question"], row["connections"], row["database"] != "bare"))


def _targets(rows: list[dict[str, Any]], memory: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each target with its worst figure. Cold questions have no target."""
    ours = [row for row in rows if row["database"] != "bare" and row["question"] != COLD]
    alone = [row["median_ratio"] for row in ours if row["connections"] == 1]
    many = [row["rate_ratio"] for row in ours if row["connections"] > 1]
    growth = [row["growth"] for row in ours if row["growth"] is not None]
    resident = [worker["rss_mib"] for worker in memory if worker["rss_mib"] is not None]
    found = (
        (TARGETS["median"], max(alone, default=None), MEDIAN),
        (TARGETS["growth"], max(growth, default=None), GROWTH),
        (TARGETS["memory"], max(resident, default=None), MEMORY),
    )
    targets = [
        {"target": text, "worst": worst, "met": worst <= limit}
        for text, worst, limit in found
        if worst is not None
    ]
    if many:
        targets.append({"target": TARGETS["rate"], "worst": min(many), "met": min(many) >= RATE})
    return targets


def show(report: dict[str, Any]) -> None:
    """Print *report*."""
    console = terminal.screen()
    console.print(f"{report['server']}; {', '.join(report['databases'])}; {report['cores']}", highlight=False)
    title = f"Answers to a broker: medians of {report['rounds']} rounds of {report['seconds']} s"
    table = Table(title=title, caption=CAPTION, box=None, padding=(0, 1, 0, 0))
    for name, heading in HEADINGS.items():
        table.add_column(
            heading, justify="left" if name in ("question", "database") else "right", no_wrap=True
        )
    for row in report["rows"]:
        table.add_row(*(format_value(row[name]) for name in HEADINGS))
    console.print(table)
    for worker in report["memory"]:
        console.print(
            f"Worker on {worker['database']} with {worker['devices']:,} devices: {worker['rss_mib']} MiB resident, "
            f"{worker['pss_mib']} MiB proportional",
            highlight=False,
        )
    show_targets(console, report)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the reference and the tables of *report* for docs/figures.md."""
    reference = REFERENCE.format(**report)
    return [reference, figures.table(COLUMNS, report["rows"]), figures.table(RESIDENT, report["memory"])]
