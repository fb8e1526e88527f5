"""`script/bench faults`: messages lost, stored twice or invented when a worker, database, broker or network fails.

The scenarios are those of rig/faults.py, with longer and more outages than in the tests. Each has a broker and a
database of its own, and a fleet that publishes 300 messages per second with QoS 1 meanwhile. At the end every
message is looked up: lost = acknowledged by the broker - readings - quarantine.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import figures, terminal
from bench.terminal import format_value, show_targets
from rig import scenarios
from rig.databases import STORES, Databases
from rig.faults import SCENARIOS
from rig.scenarios import RESUME_SECONDS, Report, Scenario
from rig.servers import MissingServer, ServerFailed

NAMES = tuple(scenario.name for scenario in SCENARIOS)
HEADINGS = {
    "scenario": "fault",
    "rounds": "times",
    "kills": "kills",
    "sent": "sent",
    "acknowledged": "acked",
    "stored": "stored",
    "quarantined": "quarantined",
    "lost": "lost",
    "phantom": "phantom",
    "duplicated": "twice",
    "repeated": "repeated",
    "allowed": "at most",
    "resumed": "back s",
    "seed": "seed",
}
CAPTION = (
    "acked: by the broker; twice: extra rows of messages with a time; repeated: of those without, of which as many "
    "as were handed over and not acknowledged may be; back s: the longest time until the worker stored again"
)

TITLE = "Faults"
COLUMNS = {
    "database": "database",
    "scenario": "fault",
    "rounds": "times",
    "kills": "kills",
    "sent": "sent",
    "acknowledged": "acknowledged by the broker",
    "stored": "stored",
    "quarantined": "in quarantine",
    "lost": "lost",
    "phantom": "never sent",
    "duplicated": "with a time, stored twice",
    "repeated": "without a time, stored again",
    "allowed": "allowed at most",
    "resumed": "longest time until stored again, s",
}
REFERENCE = """\
The reference is the list of messages that the broker acknowledged: a fleet publishes 300 per second with QoS 1.
Each fault is repeated for {seconds} s; seed {seed}."""


@dataclass
class Results:
    """The reports, and the scenarios without one."""

    reports: list[Report] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # scenarios that this machine cannot do
    broken: list[str] = field(default_factory=list)  # scenarios in which a server ended unexpectedly


def run(
    *, vendors: Sequence[str], seconds: int, only: Sequence[str], seed: int | None = None
) -> dict[str, Any]:
    """Run the bench and return its report. Raise MissingServer if a database is not installed."""
    seed = random.randrange(10**6) if seed is None else seed
    wanted = [(v, scenario) for v in vendors for scenario in SCENARIOS if scenario.name in only]
    results = _results([(v, scenario) for v, scenario in wanted if v in scenario.databases], seconds, seed)
    targets = _targets(results.reports)
    return {
        "databases": results.versions,
        "seconds": seconds,
        "seed": seed,
        "rows": [_row(report) for report in results.reports],
        "left_out": results.left_out,
        "broken": results.broken,
        "targets": targets,
        "met": bool(results.reports) and not results.broken and all(target["met"] for target in targets),
    }


def _results(wanted: Sequence[tuple[str, Scenario]], seconds: int, seed: int) -> Results:
    results = Results()
    made: dict[str, Databases] = {}
    with tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        progress = stack.enter_context(_progress())
        task = progress.add_task("faults", total=len(wanted))
        for vendor, scenario in wanted:
            progress.update(task, description=f"{scenario.name}, {vendor}")
            if vendor not in made:
                made[vendor] = stack.enter_context(STORES[vendor](folder / vendor))
                results.versions.append(made[vendor].version)
            place = folder / f"{vendor}-{scenario.name}"
            advance = _progress_of(progress, task, vendor, scenario)
            try:
                report = scenarios.run(scenario, made[vendor], place, seed, seconds=seconds, advance=advance)
                results.reports.append(report)
            except MissingServer as missing:
                results.left_out.append(f"{scenario.name} on {vendor}: {missing}")
            except ServerFailed as failed:
                results.broken.append(f"{scenario.name} on {vendor}: {failed}")
            progress.advance(task)
    return results


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = TextColumn("{task.description:45}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _progress_of(
    progress: Progress, task: Any, vendor: str, scenario: Scenario
) -> Callable[[scenarios.Rig], None]:
    def advance(current: scenarios.Rig) -> None:
        progress.update(task, description=f"{scenario.name}, {vendor}: {current.rounds} times")

    return advance


def _row(report: Report) -> dict[str, Any]:
    row = asdict(report) | {"lost": len(report.lost), "phantom": len(report.phantom), "held": report.held}
    return row | {"lost_numbers": report.lost[:20]}


def _targets(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Return the promises, each with the number of messages or complaints against it."""
    worst = {
        "nothing lost": sum(len(report.lost) for report in reports),
        "nothing stored that was not sent": sum(len(report.phantom) for report in reports),
        "nothing with a device time stored twice": sum(report.duplicated for report in reports),
        "nothing without a device time stored again except unacknowledged messages": sum(
            max(report.repeated - report.allowed, 0) for report in reports
        ),
        f"storing again in time ({RESUME_SECONDS} s; more for a half-open connection), stopping in order, "
        "and all else as promised": sum(len(report.complaints) for report in reports),
    }
    return [{"target": target, "worst": count, "met": count == 0} for target, count in worst.items()]


def show(report: dict[str, Any]) -> None:
    """Print *report*."""
    console = terminal.screen()
    console.print(f"{', '.join(report['databases'])}; seed {report['seed']}", highlight=False)
    for database in dict.fromkeys(row["database"] for row in report["rows"]):
        title = f"{database}, 300 messages per second with QoS 1"
        table = Table(title=title, caption=CAPTION, box=None, padding=(0, 1, 0, 0))
        for name, heading in HEADINGS.items():
            table.add_column(heading, justify="left" if name == "scenario" else "right", no_wrap=True)
        for row in report["rows"]:
            if row["database"] == database:
                style = "" if row["held"] else "red"
                table.add_row(*(format_value(row[name]) for name in HEADINGS), style=style)
        console.print(table)
    for row in report["rows"]:
        for complaint in row["complaints"]:
            console.print(f"{row['scenario']}, {row['database']}, {complaint}", markup=False, highlight=False)
    for line in report["left_out"]:
        console.print(f"left out: {line}", markup=False, highlight=False)
    for line in report["broken"]:
        console.print(f"broken off: {line}", markup=False, highlight=False)
    show_targets(console, report)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the reference and the table of *report* for docs/figures.md, with complaints and missing faults."""
    blocks = [REFERENCE.format(**report), figures.table(COLUMNS, report["rows"])]
    notes = [
        f"{row['scenario']} on {row['database']}, {complaint}"
        for row in report["rows"]
        for complaint in row["complaints"]
    ]
    notes += [f"left out: {line}" for line in report["left_out"]]
    notes += [f"**broken off**: {line}" for line in report["broken"]]
    # A note may end with lines of a log.
    return [*blocks, "\n".join(f"- {' '.join(note.split())}" for note in notes)] if notes else blocks
