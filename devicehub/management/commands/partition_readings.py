"""`manage.py partition_readings TYPE`: the readings of a type in partitions by time, on PostgreSQL."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from django.template.defaultfilters import pluralize

from devicehub import provisioning
from devicehub.management.batch_command import BatchCommand
from devicehub.retention import partitions
from devicehub.retention.partition_sql import NotPartitioned
from devicehub.retention.partitions import Plan


class Command(BatchCommand):
    help = "Convert the reading table of a device type to range partitions by timestamp (PostgreSQL)."
    verb = "copied"
    batch_help = "rows that are copied at once"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument(
            "--by", choices=("month", "week"), default="month", help="what one partition holds"
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        super().add_arguments(parser)

    def handle(self, *, by: str, batch: int, **options: Any) -> str:
        made = partitions.plan(provisioning.kind_of(options["type"]), by)
        if options["dry_run"]:
            return _described(made)
        if not options["yes"] and not self._agreed(made):
            raise CommandError("Nothing was changed; --yes does it without asking")
        with self.pace(batch, stopped="Stopped; the table is as it was") as pace:
            try:
                partitions.convert(made, pace)
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
