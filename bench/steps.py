"""The steps of `script/bench keeping` in one database, from filling it to erasing a device."""

from __future__ import annotations

import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.utils import timezone

from devicehub import removal
from devicehub.dashboard.chart import Chart
from devicehub.dashboard.selection import parse
from devicehub.db.batches import Pace
from devicehub.history import rollups, series
from devicehub.kinds.registry import Kind, registry
from devicehub.retention import division, partitions, pruning

YEAR = 365 * 86_400
EVERY, AT_ONCE = 0.02, 20  # seconds between two transactions of the writer, and rows of each
ALONE = 3.0
SLUG = "weatherstation"
# Only during the filling: the steps are as durable as in production.
FAST = {"sqlite": "PRAGMA synchronous = OFF", "postgresql": "SET synchronous_commit = off"}
DURABLE = {"sqlite": "PRAGMA synchronous = FULL", "postgresql": "SET synchronous_commit = on"}
NUMBERS = {
    "sqlite": (
        "WITH RECURSIVE number (n) AS (SELECT %(first)s UNION ALL SELECT n + 1 FROM number WHERE n < %(last)s)",
        "strftime('%%Y-%%m-%%d %%H:%%M:%%f', %(begin)s, (n * %(step)s) || ' seconds')",
    ),
    "postgresql": (
        "WITH number (n) AS (SELECT generate_series(%(first)s::bigint, %(last)s))",
        "%(begin)s::timestamptz + n * %(step)s * interval '1 second'",
    ),
}
CHUNK = 500_000


class Writer(threading.Thread):
    """Stores readings like ingest, one transaction after the other, and records the time of each."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(daemon=True)
        self._kind = kind
        self._done = threading.Event()
        self.milliseconds: list[float] = []

    def run(self) -> None:
        """Store readings until stop()."""
        pks = list(self._kind.device_model.objects.order_by("pk").values_list("pk", flat=True))[-2:]
        while not self._done.wait(EVERY):
            began = time.perf_counter()
            with transaction.atomic():
                self._kind.reading_model.objects.bulk_create(
                    self._kind.reading_model(device_id=pk, timestamp=timezone.now(), temperature=20.0)
                    for pk in pks * (AT_ONCE // 2)
                )
                self._kind.device_model.objects.filter(pk__in=pks).update(last_seen=timezone.now())
            self.milliseconds.append((time.perf_counter() - began) * 1000)
        connections.close_all()

    def stop(self) -> None:
        """Stop the writer, and wait for its last transaction."""
        self._done.set()
        self.join()


@contextmanager
def writing(kind: Kind) -> Iterator[list[float]]:
    """Run a writer; yield the milliseconds of its transactions, complete when the block has ended."""
    writer = Writer(kind)
    writer.start()
    try:
        yield writer.milliseconds
    finally:
        writer.stop()


def fill(kind: Kind, rows: int, since: datetime | None = None, seconds: float = YEAR) -> None:
    """Store *rows* readings of all devices in turn, evenly over *seconds* from *since* on (default: the last year)."""
    pks = list(kind.device_model.objects.order_by("pk").values_list("pk", flat=True))
    numbers, moment = NUMBERS[connection.vendor]
    since = since or timezone.now() - timedelta(seconds=seconds)
    begin = since.replace(tzinfo=None).isoformat(" ", "seconds")
    for first in range(0, rows, CHUNK):
        with connection.cursor() as cursor:
            cursor.execute(
                f"{numbers} INSERT INTO {kind.reading_model._meta.db_table}"
                " (device_id, timestamp, received_at, temperature, humidity, rainfall)"
                f" SELECT {pks[0]} + n %% {len(pks)}, {moment}, {moment}, 20 + n %% 17, 50 + n %% 13, 0 FROM number",
                {
                    "first": first,
                    "last": min(first + CHUNK, rows) - 1,
                    "begin": begin,
                    "step": seconds / rows,
                },
            )


def timed(action: Callable[[], Any]) -> float:
    """Run *action*, and return its seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def charted(kind: Kind, *, from_rows: bool) -> float:
    """Return the seconds to load the chart of a year, the median of three."""

    def load() -> None:
        plotted = parse({"reading": f"{SLUG}.temperature"}).plotted
        assert plotted is not None
        with mock.patch.object(series, "ROLLED_UP", math.inf if from_rows else series.ROLLED_UP):
            Chart(plotted, YEAR, User(is_superuser=True)).load(timezone.now())

    return statistics.median(timed(load) for _ in range(3))


def measure(kind: Kind, rows: int) -> Iterator[dict[str, Any]]:
    """Run the steps, and yield a report of each."""

    def roll_up() -> None:
        while rollups.roll_up(1_000_000):
            pass

    def prune(days: int) -> list[pruning.Pruned]:
        return pruning.prune(kind, Pace(), older_than=timedelta(days=days))

    yield {"step": "roll up", "rows": rows, "seconds": timed(roll_up)}
    yield {"step": "chart of a year, rows", "rows": rows, "seconds": charted(kind, from_rows=True)}
    yield {"step": "chart of a year, rollups", "rows": rows, "seconds": charted(kind, from_rows=False)}
    with writing(kind) as milliseconds:
        time.sleep(ALONE)
    yield {"step": "the writer alone", "seconds": ALONE, "stall_ms": round(max(milliseconds))}
    roll_up()  # so that the rows of the writer do not count in the next step
    with writing(kind) as milliseconds:
        began = time.perf_counter()
        gone = prune(335)[0].deleted
        took = time.perf_counter() - began
    yield {
        "step": "prune a month, batches",
        "rows": gone,
        "seconds": took,
        "stall_ms": round(max(milliseconds)),
    }
    if connection.vendor == "postgresql":
        made = division.plan(kind, "month")
        with writing(kind) as milliseconds:
            took = timed(lambda: division.convert(made, Pace()))
        left = kind.reading_model.objects.count()
        yield {"step": "partition", "rows": left, "seconds": took, "stall_ms": round(max(milliseconds))}
        yield dropped(kind, gone)
    big = kind.device_model.objects.order_by("pk")[0]
    with writing(kind) as milliseconds:
        began = time.perf_counter()
        erased = removal.erase(kind, big.device_id, Pace())
        took = time.perf_counter() - began
    yield {
        "step": "erase a device",
        "rows": erased.readings + erased.rollups,
        "seconds": took,
        "stall_ms": round(max(milliseconds)),
    }


def dropped(kind: Kind, rows: int) -> dict[str, Any]:
    """Fill the next month with *rows*, and drop its partition."""
    table = kind.reading_model._meta.db_table
    month = partitions.partitions_of(table)[1]
    assert month.start
    assert month.end
    fill(kind, rows, month.start, (month.end - month.start).total_seconds())
    with writing(kind) as milliseconds:
        took = timed(lambda: partitions.drop(table, month.name, None))
    return {
        "step": "prune a month, partition",
        "rows": rows,
        "seconds": took,
        "stall_ms": round(max(milliseconds, default=0)),
    }


def main(rows: int) -> None:
    """Fill the database, run the steps, and print their reports as JSON."""
    kind = registry.get(SLUG)
    assert kind is not None
    with connection.cursor() as cursor:
        cursor.execute(FAST[connection.vendor])
    print(f"filling {connection.vendor} with {rows:,} rows", file=sys.stderr)
    fill(kind, rows)
    with connection.cursor() as cursor:
        cursor.execute(DURABLE[connection.vendor])
        cursor.execute("ANALYZE")
    done = []
    for step in measure(kind, rows):
        done.append({**step, "seconds": round(step["seconds"], 3)})
        print(f"{connection.vendor}: {step['step']}: {step['seconds']:.2f} s", file=sys.stderr)
    print(json.dumps(done))
