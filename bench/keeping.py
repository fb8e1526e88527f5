"""`script/bench keeping`: the cost of keeping a year of readings, of showing it, and of deleting it.

In each database a year of readings of ten weather stations is rolled up, charted from the rows and from the rollups,
pruned by a month in batches and, on PostgreSQL, by dropping a partition, and one station is erased.
While rows are deleted, a writer stores 20 readings every 20 ms like ingest; its longest wait is the stall.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from bench import figures, terminal
from bench.terminal import format_value, show_targets
from rig.serving import ROOT, CannotMeasure, databases, hub

STALL_MS, CHART_MS = 1_000, 1_000
HEADINGS = {"step": "what", "database": "database", "rows": "rows", "seconds": "s", "stall_ms": "stall ms"}
TITLE = "Keeping data"
COLUMNS = {
    "database": "database",
    "step": "step",
    "rows": "rows",
    "seconds": "seconds",
    "stall_ms": "longest wait of a writer, ms",
}
REFERENCE = """\
{rows:,} readings of ten devices, evenly over a year.
The references are the same chart from the rows, the deletion of as many rows as a partition holds, \
and the writer alone; that writer stores 20 readings in a transaction every 20 ms."""
RATIOS = {"database": "database", "ratio": "slow way / fast way", "times": "times faster"}


def run(*, vendors: Sequence[str], rows: int) -> dict[str, Any]:
    """Run the bench and return its report. Raise CannotMeasure."""
    measured: list[dict[str, Any]] = []
    versions = []
    for vendor in vendors:
        with (
            tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name,
            databases(vendor, Path(name)) as create,
        ):
            made = hub(vendor, create("keeping"), count=10, with_passwords=0)
            versions.append(made.version)
            measured += _steps(vendor, made.environment, rows)
    targets = _targets(measured)
    return {
        "databases": versions,
        "rows": rows,
        "steps": measured,
        "ratios": [ratio for vendor in vendors for ratio in _ratios(vendor, measured)],
        "targets": targets,
        "met": all(target["met"] for target in targets),
    }


def _steps(vendor: str, environment: dict[str, str], rows: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "bench.keeping_process", str(rows)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CannotMeasure(
            f"bench.keeping_process ended with {done.returncode} on {vendor}\n{done.stdout}".rstrip()
        )
    return [{"database": vendor, **step} for step in json.loads(done.stdout)]


def _seconds(vendor: str, measured: list[dict[str, Any]]) -> dict[str, float]:
    return {step["step"]: step["seconds"] for step in measured if step["database"] == vendor}


def _ratios(vendor: str, measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each pair of steps with the factor by which the second one is faster."""
    seconds = _seconds(vendor, measured)
    pairs = {
        "chart of a year: rows / rollups": ("chart of a year, rows", "chart of a year, rollups"),
        "a month: delete / drop": ("prune a month, batches", "prune a month, partition"),
    }
    return [
        {"database": vendor, "ratio": name, "times": round(seconds[slow] / seconds[fast], 1)}
        for name, (slow, fast) in pairs.items()
        if slow in seconds and fast in seconds
    ]


def _targets(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stall = max(step["stall_ms"] for step in measured if step.get("stall_ms") is not None)
    chart = max(step["seconds"] for step in measured if step["step"] == "chart of a year, rollups") * 1000
    return [
        {
            "target": f"no writer waits longer than {STALL_MS} ms while rows are deleted",
            "worst": stall,
            "met": stall <= STALL_MS,
        },
        {
            "target": f"the chart of a year from rollups takes at most {CHART_MS} ms",
            "worst": round(chart),
            "met": chart <= CHART_MS,
        },
    ]


def show(report: dict[str, Any]) -> None:
    """Print *report*."""
    console = terminal.screen()
    console.print(", ".join(report["databases"]), highlight=False)
    table = Table(title=f"A year of {report['rows']:,} readings", box=None, padding=(0, 1, 0, 0))
    for name, heading in HEADINGS.items():
        left = name in ("step", "database")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for step in report["steps"]:
        table.add_row(*(format_value(step.get(name)) for name in HEADINGS))
    console.print(table)
    for ratio in report["ratios"]:
        console.print(f"{ratio['database']}: {ratio['ratio']}: {ratio['times']:,} times", highlight=False)
    show_targets(console, report)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the references and the tables of *report* for docs/figures.md."""
    tables = [figures.table(COLUMNS, report["steps"]), figures.table(RATIOS, report["ratios"])]
    return [REFERENCE.format(**report), *tables]
