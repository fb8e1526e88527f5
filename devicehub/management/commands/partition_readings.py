"""`manage.py partition_readings TYPE`: the readings of a type in partitions by time, on PostgreSQL."""

from __future__ import annotations

import signal
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from django.template.defaultfilters import pluralize

from authsvc.management.command import DatabaseCommand
from devicehub import provisioning
from devicehub.db.batches import Pace, Stopped
from devicehub.management.progress import counting, positive
from devicehub.retention import partitions
from devicehub.retention.partition_sql import NotPartitioned
from devicehub.retention.partitions import Plan


class Command(DatabaseCommand):
    help = "Convert the reading table of a device type to range partitions by timestamp (PostgreSQL)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument(
            "--by", choices=("month", "week"), default="month", help="what one partition holds"
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--batch", type=positive, default=Pace.rows, help="rows that are copied at once")

    def handle(self, *, by: str, batch: int, **options: Any) -> str:
        try:
            made = partitions.plan(provisioning.kind_of(options["type"]), by)
        except (provisioning.UnknownKind, NotPartitioned) as error:
            raise CommandError(str(error)) from error
        if options["dry_run"]:
            return _described(made)
        if not options["yes"] and not self._agreed(made):
            raise CommandError("Nothing was changed; --yes does it without asking")
        with counting(self.stderr, "copied") as report:
            pace = Pace(rows=batch, report=report)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: pace.stop.set())
            try:
                partitions.convert(made, pace)
            except Stopped as error:
                raise CommandError("Stopped; the table is as it was") from error
            except (DatabaseError, NotPartitioned) as error:
                raise CommandError(f"The table is as it was: {error}") from error
        return f"{made.table} has {_partitions(made)}, and one for the rest"

    def _agreed(self, made: Plan) -> bool:
        if not sys.stdin.isatty():
            return False
        self.stdout.write(_described(made))
        return input("Convert it now? [y/N] ").strip().lower() in ("y", "yes")


def _partitions(made: Plan) -> str:
    return f"{len(made.starts)} partition{pluralize(len(made.starts))} by {made.by}"


def _described(made: Plan) -> str:
    return (
        f"{made.table}, about {made.rows:,} row{pluralize(made.rows)}, would get {_partitions(made)}, "
        f"from {made.starts[0]:%Y-%m-%d} to {made.starts[-1]:%Y-%m-%d}, and one for the rest. "
        "It needs as much free space as the table has now."
    )
