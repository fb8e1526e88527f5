"""`manage.py partition_readings TYPE`: divide the readings of a type into partitions by time, on PostgreSQL."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from django.template.defaultfilters import pluralize

from devicehub import provisioning
from devicehub.management.batch_command import StoppableCommand
from devicehub.retention import division, partitions
from devicehub.retention.division import Plan
from devicehub.retention.partition_sql import NotPartitioned


class Command(StoppableCommand):
    help = "Divide the reading table of a device type into range partitions by timestamp (PostgreSQL)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument(
            "--by",
            choices=("month", "week"),
            default="month",
            help="the period of one partition (default: %(default)s)",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="describe the division, and change nothing"
        )
        parser.add_argument("--yes", action="store_true", help="divide without confirmation")

    def handle(self, *, by: str, **options: Any) -> str:
        made = division.plan(provisioning.kind_of(options["type"]), by)
        if options["dry_run"]:
            return _described(made)
        if not options["yes"] and not self._confirmed(made):
            raise CommandError("Nothing was changed; --yes divides without confirmation")
        with self.pace(stopped="Stopped; the table is unchanged") as pace:
            try:
                division.convert(made, pace)
            except (DatabaseError, NotPartitioned) as error:
                raise CommandError(f"The table is unchanged: {error}") from error
        return f"{made.table} has {_partitions(made)}"

    def _confirmed(self, made: Plan) -> bool:
        if not sys.stdin.isatty():
            return False
        self.stdout.write(_described(made))
        return input("Divide it now? [y/N] ").strip().lower() in ("y", "yes")


def _partitions(made: Plan) -> str:
    end = partitions.next_period(made.starts[-1], made.by)
    return (
        f"one partition for all before {made.starts[0]:%Y-%m-%d}, {len(made.starts)} partitions by {made.by} from"
        f" then until {end:%Y-%m-%d}, and one for the rest"
    )


def _described(made: Plan) -> str:
    return (
        f"{made.table}, about {made.rows:,} row{pluralize(made.rows)}, would get {_partitions(made)}. "
        "No row is copied; it needs free space for an index of ids and times."
    )
