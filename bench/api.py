"""`script/bench api`: the answers of the REST API, an export of all readings, and readings that devices post.

A large database has one server with one worker, and one ingest worker on a Mosquitto. The reference of the answers and
of single posts is a bare view of Django REST framework on the same server, which authenticates and does nothing else.
The reference of posts with many samples is ingest over MQTT into the same database.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from bench import apart, figures, subjects, terminal
from bench.api_addresses import ADDRESSES, FOUND
from bench.ingest import MOSQUITTO, SERVER, WARM_UP, one_round
from bench.subjects import Size, Worker
from bench.terminal import format_value, show_targets
from rig import servers
from rig.serving import ROOT, CannotMeasure, Server, served

BARE = "bare view"
MEDIAN_MS = 50
EXPORTED = 50_000  # rows per second
PEAK_MIB = 150
SAMPLES = 100  # of one body
OF_MQTT = 0.25
OF_BARE = 0.4
PUBLISHING = 200  # devices
POSTED = 2_000  # single posts of a round
BODIES = 200  # of SAMPLES samples, in a round
MESSAGES = 10_000  # over MQTT, in a round

TITLE = "REST API"
HEADINGS = {
    "database": "database",
    "address": "address",
    "rows": "rows",
    "kib": "KiB",
    "median_ms": "median ms",
    "p99_ms": "99 % ms",
    "times": "/ bare",
}
COLUMNS = HEADINGS | {"median_ms": "median, ms", "p99_ms": "99 %, ms", "times": "times the bare view"}
EXPORTS = {
    "database": "database",
    "form": "form",
    "rows": "rows",
    "per_second": "rows per second",
    "first_ms": "first bytes, ms",
    "before_mib": "memory before, MiB",
    "peak_mib": "peak memory, MiB",
}
POSTS = {
    "database": "database",
    "what": "what",
    "per_second": "requests per second",
    "readings": "readings per second",
    "reference": "of the reference",
    "ratio": "ratio",
}
REFERENCE = """\
{count:,} stations with {stored:,} readings and as many messages, one server with one worker; \
medians of {requests} requests one after the other, each about another object.
The reference of the answers and of single posts, the *bare view*, is a view of Django REST framework on the same \
server that authenticates the caller and does nothing else.
Posts come over {posting} connections, each of another device; the reference of bodies of {samples} samples is ingest \
over MQTT of one reading in each message, into the same database.
Medians of {rounds} rounds."""


def run(
    *, vendors: Sequence[str], count: int, stored: int, requests: int, rounds: int, messages: int
) -> dict[str, Any]:
    """Run the bench and return its report. Raise CannotMeasure."""
    report: dict[str, list[Any]] = {"databases": [], "filled": [], "answers": [], "exports": [], "posts": []}
    with tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(servers.mosquitto(folder, MOSQUITTO))
        for vendor in vendors:
            size, publishing = Size("", count, stored), min(PUBLISHING, count)
            settings = SERVER if vendor == "postgresql" and stored > 10**6 else ()
            with subjects.worker(vendor, size, publishing, port, folder, settings) as worker:
                report["databases"].append(worker.made.version)
                report["filled"].append(worker.filled())
                wanted = _filled(worker, count)
                environment = worker.made.environment | {"DJANGO_SETTINGS_MODULE": "bench.api_settings"}
                with served(
                    "config.asgi:application", folder / f"api-{vendor}.log", environment=environment
                ) as server:
                    # First, since the memory of a server stays at what its largest answers took.
                    report["exports"] += _exports(vendor, server, wanted)
                    report["answers"] += _answers(vendor, server, wanted, requests)
                    report["posts"] += _posts(vendor, server, wanted, worker, port, rounds, messages)
    targets = _targets(report)
    return {
        **report,
        "count": count,
        "stored": stored,
        "requests": requests,
        "rounds": rounds,
        "posting": len(wanted["posting"]),
        "samples": SAMPLES,
        "targets": targets,
        "met": all(target["met"] for target in targets),
    }


def _filled(worker: Worker, count: int) -> Any:
    command = [sys.executable, "-m", "bench.api_filling", str(count)]
    done = subprocess.run(
        command, cwd=ROOT, env=worker.made.environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise CannotMeasure(f"bench.api_filling ended with {done.returncode}\n{done.stdout}".rstrip())
    return json.loads(done.stdout)


def _client(job: str, **wanted: Any) -> Any:
    return apart.call("bench.api_client", f"not every request of {job} was answered", job=job, **wanted)


def _answers(vendor: str, server: Server, wanted: Any, requests: int) -> list[dict[str, Any]]:
    """Return the figures of each address, the bare view first."""
    rows = _client(
        "get",
        port=server.port,
        key=wanted["key"],
        addresses=[(BARE, "/bare/"), *ADDRESSES],
        names=wanted["names"],
        found=FOUND,
        requests=requests,
    )
    bare = rows[0]["median_ms"]
    return [
        {"database": vendor, **row, "times": round(row["median_ms"] / bare, 1) if row["median_ms"] else None}
        for row in rows
    ]


def _exports(vendor: str, server: Server, wanted: Any) -> list[dict[str, Any]]:
    """Return the figures of an export of all readings in each form."""
    found = []
    for form, lines in (("csv", 1), ("ndjson", 0)):
        [pid] = server.workers()
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # The peak is that of this export.
        before = _memory(pid, "VmRSS:")
        path = f"/api/readings/export/?type=weatherstation&as={form}"
        one = _client("export", port=server.port, key=wanted["key"], path=path)
        rows = one["lines"] - lines
        found.append(
            {
                "database": vendor,
                "form": form,
                "rows": rows,
                "per_second": round(rows / one["seconds"]),
                "first_ms": one["first_ms"],
                "before_mib": before,
                "peak_mib": _memory(pid, "VmHWM:"),
            }
        )
    return found


def _memory(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return round(int(line.split()[1]) / 1024, 1)
    raise CannotMeasure(f"process {pid} has ended")


def _posts(
    vendor: str, server: Server, wanted: Any, worker: Worker, port: int, rounds: int, messages: int
) -> list[dict[str, Any]]:
    """Return the figures of posts beside their references, which take turns."""
    clock = _Clock()
    bodies = max(1, BODIES * messages // MESSAGES)
    singly = max(1, POSTED * messages // MESSAGES)
    one_round(worker, worker.topics, port, min(WARM_UP, messages))
    _post(server, wanted, clock.bodies(singly // 10 + 1, 1))
    found: dict[str, list[float]] = {"mqtt": [], "many": [], "single": [], "bare": []}
    for _ in range(rounds):
        found["mqtt"].append(one_round(worker, worker.topics, port, messages).rate)
        found["many"].append(_post(server, wanted, clock.bodies(bodies, SAMPLES)))
        found["single"].append(_post(server, wanted, clock.bodies(singly, 1)))
        found["bare"].append(_post(server, wanted, clock.bodies(singly, 1), path="/bare/"))
    rate = {name: statistics.median(rates) for name, rates in found.items()}
    rows = (
        ("mqtt", "MQTT, one reading in each message", rate["mqtt"], None),
        ("many", f"posts of {SAMPLES} samples", rate["many"] * SAMPLES, "mqtt"),
        ("bare", f"posts to the {BARE}", None, None),
        ("single", "posts of one sample", rate["single"], "bare"),
    )
    return [
        {
            "database": vendor,
            "what": what,
            "per_second": round(rate[name]),
            "readings": None if readings is None else round(readings),
            "reference": {"mqtt": "MQTT", "bare": BARE, None: None}[of],
            "ratio": None if of is None else round((readings or 0) / rate[of], 2),
        }
        for name, what, readings, of in rows
    ]


class _Clock:
    """A source of bodies of which no two have a time in common."""

    def __init__(self) -> None:
        self._next = datetime.fromtimestamp(time.time() - 7_200, UTC)
        self._draw = random.Random(self._next.timestamp())

    def bodies(self, count: int, samples: int) -> list[str]:
        """Return *count* bodies of *samples* samples each."""
        return [json.dumps(found[0] if samples == 1 else found) for found in self._samples(count, samples)]

    def _samples(self, count: int, samples: int) -> list[list[dict[str, Any]]]:
        return [[self._sample() for _ in range(samples)] for _ in range(count)]

    def _sample(self) -> dict[str, Any]:
        self._next += timedelta(milliseconds=1)
        return {
            "timestamp": self._next.isoformat(),
            "temperature": round(self._draw.uniform(-10, 35), 2),
            "humidity": round(self._draw.uniform(20, 95), 1),
            "rainfall": round(self._draw.uniform(0, 4), 1),
        }


def _post(server: Server, wanted: Any, bodies: list[str], path: str = "") -> float:
    """Return the posts per second of *bodies* to *path*, or to the readings of the devices."""
    posting = wanted["posting"]
    paths = [path or f"/api/devices/weatherstation/{one['device_id']}/readings/" for one in posting]
    keys = [one["key"] for one in posting]
    return float(_client("post", port=server.port, keys=keys, paths=paths, bodies=bodies)["per_second"])


def _targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    missing = [row["address"] for row in report["answers"] if row["median_ms"] is None]
    slowest = max((row for row in report["answers"] if row["median_ms"]), key=lambda row: row["median_ms"])
    as_csv = min(row["per_second"] for row in report["exports"] if row["form"] == "csv")
    peak = max(row["peak_mib"] for row in report["exports"])
    of = {
        name: [row["ratio"] for row in report["posts"] if row["reference"] == name] for name in ("MQTT", BARE)
    }
    return [
        {
            "target": f"the median of each answer at most {MEDIAN_MS} ms",
            "worst": f"{slowest['median_ms']} ms, {slowest['address']} ({slowest['database']})",
            "met": slowest["median_ms"] <= MEDIAN_MS,
        },
        {
            "target": "every address is answered",
            "worst": f"missing: {', '.join(dict.fromkeys(missing))}" if missing else 0,
            "met": not missing,
        },
        {
            "target": f"an export of at least {EXPORTED:,} rows per second in CSV",
            "worst": as_csv,
            "met": as_csv >= EXPORTED,
        },
        {"target": f"at most {PEAK_MIB} MiB during an export", "worst": peak, "met": peak <= PEAK_MIB},
        {
            "target": f"readings per second in bodies of {SAMPLES} at least {OF_MQTT:.0%} of ingest over MQTT",
            "worst": min(of["MQTT"]),
            "met": min(of["MQTT"]) >= OF_MQTT,
        },
        {
            "target": f"single posts per second at least {OF_BARE:.0%} of the {BARE}",
            "worst": min(of[BARE]),
            "met": min(of[BARE]) >= OF_BARE,
        },
    ]


def show(report: dict[str, Any]) -> None:
    """Print *report*."""
    console = terminal.screen()
    console.print(", ".join(report["databases"]), highlight=False)
    title = f"{report['count']:,} stations, {report['stored']:,} readings"
    for columns, rows in ((HEADINGS, "answers"), (EXPORTS, "exports"), (POSTS, "posts")):
        table = Table(title=title if rows == "answers" else None, box=None, padding=(0, 1, 0, 0))
        for name, heading in columns.items():
            left = name in ("database", "address", "form", "what", "reference")
            table.add_column(heading, justify="left" if left else "right")
        for row in report[rows]:
            table.add_row(*(format_value(row[name]) for name in columns))
        console.print(table)
    show_targets(console, report)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the references and the tables of *report* for docs/figures.md."""
    return [
        REFERENCE.format(**report),
        figures.table(COLUMNS, report["answers"]),
        figures.table(EXPORTS, report["exports"]),
        figures.table(POSTS, report["posts"]),
    ]
