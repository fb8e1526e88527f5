"""`script/bench lwm2m`: notifications of LwM2M endpoints beside typed ingest, latest values, and codecs.

One worker for each database takes readings of weather stations and notifications of endpoints in turn, over one
Mosquitto with QoS 1, as in `script/bench ingest`. A notification has four values; it is stored as an event, four rows
of history, four latest values and a raw message.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table

from bench import codecs, figures, subjects, terminal
from bench.endpoints import ENDPOINT_ID
from bench.ingest import CONNECTIONS, MOSQUITTO, Round, one_round
from bench.publisher import VALUES
from bench.subjects import Endpoints, Size, Worker
from bench.terminal import format_value, show_targets
from rig import servers
from rig.serving import ROOT, CannotMeasure, Hub

FORMS = ("senml+cbor", "senml+json")
WARM_UP = 2_000
SHARE = 0.5  # of the messages per second of typed ingest
LATEST_MS = 5
RECORDS = 50_000  # per second

TITLE = "LwM2M"
COLUMNS = {
    "subject": "what",
    "per_second": "messages per second",
    "values_per_second": "values per second",
    "ratio": "of typed ingest",
    "cpu_per_10000": "CPU seconds per 10,000",
    "sent": "sent",
    "lost": "lost",
    "duplicated": "stored twice",
}
LATEST = {
    "database": "database",
    "endpoints": "endpoints",
    "values": "values of each",
    "queries": "queries",
    "median_ms": "median, ms",
    "p99_ms": "99 %, ms",
}
CODECS = {
    "codec": "codec",
    "records": "records of a payload",
    "decoded": "decoded per second",
    "encoded": "encoded per second",
}
REFERENCE = """\
The reference is typed ingest: flat readings of weather stations, through the same worker into the same database.
QoS 1 over {connections} connections, from {count} devices of each kind, measured in turn; \
medians of {rounds} rounds of {messages:,} messages, and of the ratios of neighbouring rounds.
A notification has {values} values: it is stored as an event, {values} rows of history, {values} latest values, \
a raw message and a change of its endpoint, and looked up afterwards."""


def run(*, vendors: Sequence[str], count: int, fleet: int, messages: int, rounds: int) -> dict[str, Any]:
    """Run the bench and return its report; *count* devices of each kind publish. Raise CannotMeasure."""
    if fleet < count:
        raise CannotMeasure(f"--fleet {fleet} is less than the {count} devices that publish (--devices)")
    rows, latest, versions = [], [], []
    with tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(servers.mosquitto(folder, MOSQUITTO))
        for vendor in vendors:
            with subjects.worker(
                vendor, Size("", count), count, port, folder, fill=lambda made: _filled(made, fleet)
            ) as worker:
                versions.append(worker.made.version)
                rows += _rows(_measure(worker, count, port, messages, rounds))
                latest.append({"database": vendor, **_endpoints(worker.made, "--measure")})
    coded = codecs.measure()
    targets = _targets(rows, latest, coded)
    return {
        "databases": versions,
        "connections": CONNECTIONS,
        "count": count,
        "values": VALUES,
        "messages": messages,
        "rounds": rounds,
        "rows": rows,
        "latest": latest,
        "codecs": coded,
        "targets": targets,
        "met": all(target["met"] for target in targets),
    }


def _filled(made: Hub, fleet: int) -> None:
    _endpoints(made, "--count", str(fleet))


def _endpoints(made: Hub, *given: str) -> Any:
    command = [sys.executable, "-m", "bench.endpoints", *given]
    done = subprocess.run(
        command, cwd=ROOT, env=made.environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise CannotMeasure(
            f"bench.endpoints ended with {done.returncode} on {made.vendor}\n{done.stdout}".rstrip()
        )
    return json.loads(done.stdout)


def _measure(worker: Worker, count: int, port: int, messages: int, rounds: int) -> dict[str, list[Round]]:
    """Return the rounds of typed devices, and of endpoints in each form, by the name of the subject."""
    ids = [ENDPOINT_ID.format(number) for number in range(1, count + 1)]
    everyone = [worker, *(Endpoints(worker, form, ids) for form in FORMS)]
    results: dict[str, list[Round]] = defaultdict(list)
    for subject in everyone:
        one_round(subject, subject.topics, port, max(WARM_UP, count))
    with terminal.progress() as progress:
        steps = [subject for _ in range(rounds) for subject in everyone]
        for subject in progress.track(steps, description=f"lwm2m, {worker.name}"):
            results[subject.name].append(one_round(subject, subject.topics, port, messages))
    return results


def _rows(results: dict[str, list[Round]]) -> list[dict[str, Any]]:
    typed = next(iter(results.values()))
    rows = []
    for name, measured in results.items():
        is_typed = measured is typed
        rate = statistics.median(one.rate for one in measured)
        pairs = zip(measured, typed, strict=True)
        rows.append(
            {
                "subject": f"{name}, typed" if is_typed else name,
                "per_second": round(rate),
                "values_per_second": round(rate * (3 if is_typed else VALUES)),
                "ratio": round(statistics.median(one.rate / other.rate for one, other in pairs), 3),
                "cpu_per_10000": round(statistics.median(one.cpu / one.sent for one in measured) * 10_000, 2),
                **{key: sum(getattr(one, key) for one in measured) for key in ("sent", "lost", "duplicated")},
            }
        )
    return rows


def _targets(
    rows: list[dict[str, Any]], latest: list[dict[str, Any]], coded: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    share = min(row["ratio"] for row in rows)
    wrong = max(row["lost"] + row["duplicated"] for row in rows)
    slowest = max(row["median_ms"] for row in latest)
    queries = max(row["queries"] for row in latest)
    rate = min(row[way] for row in coded for way in ("decoded", "encoded") if way in row)
    return [
        {
            "target": f"notifications per second at least {SHARE:.0%} of typed ingest",
            "worst": share,
            "met": share >= SHARE,
        },
        {"target": "nothing lost, nothing stored twice", "worst": wrong, "met": wrong == 0},
        {
            "target": f"the latest values of one endpoint within {LATEST_MS} ms",
            "worst": slowest,
            "met": slowest < LATEST_MS,
        },
        {"target": "and by one query", "worst": queries, "met": queries == 1},
        {
            "target": f"at least {RECORDS:,} records per second of each codec",
            "worst": rate,
            "met": rate >= RECORDS,
        },
    ]


def show(report: dict[str, Any]) -> None:
    """Print *report*."""
    console = terminal.screen()
    console.print(", ".join(report["databases"]), highlight=False)
    for columns, key in ((COLUMNS, "rows"), (LATEST, "latest"), (CODECS, "codecs")):
        table = Table(box=None, padding=(0, 1, 0, 0))
        for number, heading in enumerate(columns.values()):
            table.add_column(heading, justify="right" if number else "left")
        for row in report[key]:
            table.add_row(*(format_value(row.get(name)) for name in columns))
        console.print(table)
    show_targets(console, report)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the reference and the tables of *report* for docs/figures.md."""
    return [
        REFERENCE.format(**report),
        figures.table(COLUMNS, report["rows"]),
        "The latest values of one endpoint, drawn at random, read by the ORM:",
        figures.table(LATEST, report["latest"]),
        "Codecs, each the fastest of several repetitions in one process:",
        figures.table(CODECS, report["codecs"]),
    ]
