"""`script/bench changes`: the time from a commit by SQL that disables a device to its refusal in two processes."""

from __future__ import annotations

import http.client
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from rich.table import Table

from bench import figures, terminal
from bench.terminal import format_value, show_targets
from rig.serving import CannotMeasure, Device, Hub, databases, hub, served, software

PROCESSES = 2
TARGET_MS, BOUND_MS = 100, 1_000
DISABLE = "UPDATE fleet_weatherstationdevice SET is_active = false WHERE device_id = "
HEADINGS = {
    "database": "database",
    "changes": "changes",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "max_ms": "max ms",
}
TITLE = "Changes in force"
COLUMNS = {
    "database": "database",
    "changes": "devices disabled",
    "p50_ms": "median, ms",
    "p99_ms": "99 %, ms",
    "max_ms": "longest, ms",
}
REFERENCE = f"""\
Each device is disabled by SQL, while a client logs in as that device again and again, at {PROCESSES} server processes.
A delay is the time from the commit to the first refusal of a process; there is no reference."""


def run(*, vendors: Sequence[str], count: int) -> dict[str, Any]:
    """Run the bench and return its report. Raise CannotMeasure."""
    rows: list[dict[str, Any]] = []
    versions = []
    with tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name:
        for vendor in vendors:
            folder = Path(name) / vendor
            folder.mkdir()
            with databases(vendor, folder) as create:
                made = hub(vendor, create("changes"), count=count, with_passwords=count)
                versions.append(made.version)
                delays = _delays(made, folder)
            rows.append({"database": vendor, "changes": count, "processes": PROCESSES, **_summary(delays)})
    slowest = max(row["p99_ms"] for row in rows)
    longest = max(row["max_ms"] for row in rows)
    targets = [
        {"target": f"99 % in force within {TARGET_MS} ms", "worst": slowest, "met": slowest <= TARGET_MS},
        {"target": f"all in force within {BOUND_MS} ms", "worst": longest, "met": longest <= BOUND_MS},
    ]
    met = all(target["met"] for target in targets)
    return {"server": software(), "databases": versions, "rows": rows, "targets": targets, "met": met}


def _delays(made: Hub, folder: Path) -> list[float]:
    """Return the milliseconds from the commit to the refusal, for each device and process."""
    found: list[float] = []
    ours = "config.asgi:application"
    with (
        served(ours, folder / "one.log", environment=made.environment) as one,
        served(ours, folder / "other.log", environment=made.environment) as other,
        _writing(made) as disable,
        closing(http.client.HTTPConnection("127.0.0.1", one.port, timeout=5)) as to_one,
        closing(http.client.HTTPConnection("127.0.0.1", other.port, timeout=5)) as to_other,
    ):
        time.sleep(2)  # until both listen
        with terminal.progress() as progress:
            for device in progress.track(made.generated, description=made.vendor):
                found += _change(made, device, (to_one, to_other), disable)
    return found


def _change(
    made: Hub,
    device: Device,
    processes: Sequence[http.client.HTTPConnection],
    disable: Callable[[str], object],
) -> Iterator[float]:
    for process in processes:
        for _ in range(3):  # so that the process caches the device
            if not _allowed(made, device, process):
                raise CannotMeasure(f"{device.device_id} is not admitted")
    disable(device.device_id)
    committed = time.perf_counter()
    waiting = list(processes)
    while waiting:
        for process in list(waiting):
            if not _allowed(made, device, process):
                waiting.remove(process)
                yield (time.perf_counter() - committed) * 1_000


def _allowed(made: Hub, device: Device, process: http.client.HTTPConnection) -> bool:
    fields = {"username": device.username, "clientid": device.username, "password": device.password}
    headers = {"Content-Type": "application/json"}
    process.request("POST", f"/mqtt/go-auth/user?k={made.token}", json.dumps(fields), headers)
    reply = process.getresponse()
    reply.read()
    if reply.status not in (200, 403):
        raise CannotMeasure(f"a login was answered with {reply.status}")
    return reply.status == 200


@contextmanager
def _writing(made: Hub) -> Iterator[Callable[[str], object]]:
    """Yield a function that disables a device by SQL, over a connection of its own."""
    url = made.environment["DATABASE_URL"]
    if made.vendor == "postgresql":
        with psycopg.connect(url, autocommit=True) as postgresql:
            yield lambda device_id: postgresql.execute(f"{DISABLE}%s", [device_id])
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as sqlite:
        yield lambda device_id: sqlite.execute(f"{DISABLE}?", [device_id])


def _summary(delays: list[float]) -> dict[str, float]:
    parts, longest = statistics.quantiles(delays, n=100), max(delays)
    # Of few delays the quantile is extrapolated beyond the longest.
    return {
        "p50_ms": round(parts[49], 2),
        "p99_ms": round(min(parts[98], longest), 2),
        "max_ms": round(longest, 2),
    }


def show(report: dict[str, Any]) -> None:
    """Print *report*."""
    console = terminal.screen()
    console.print(f"{report['server']}; {', '.join(report['databases'])}", highlight=False)
    table = Table(title="From a commit by SQL to the refusal", box=None, padding=(0, 1, 0, 0))
    for name, heading in HEADINGS.items():
        table.add_column(heading, justify="left" if name == "database" else "right", no_wrap=True)
    for row in report["rows"]:
        table.add_row(*(format_value(row.get(name)) for name in HEADINGS))
    console.print(table)
    show_targets(console, report)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the reference and the table of *report* for docs/figures.md."""
    return [REFERENCE, figures.table(COLUMNS, report["rows"])]
