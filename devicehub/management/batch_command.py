"""What commands that take long have in common: a signal stops them; those that change many rows go in batches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError, CommandParser

from authsvc.management.command import DatabaseCommand
from devicehub.db.batches import Pace, Stopped
from devicehub.management.progress import counting, positive


class StoppableCommand(DatabaseCommand):
    """A command that takes long and ends in order on SIGTERM and on ctrl-c."""

    verb = "deleted"  # what happens to the rows that are counted on a terminal

    @contextmanager
    def pace(self, batch: int = Pace.rows, *, stopped: str) -> Iterator[Pace]:
        """Give the pace of the block, which a signal ends. CommandError with the text *stopped* when one did."""
        with counting(self.stderr, self.verb) as report:
            pace = Pace(rows=batch, report=report)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: pace.stop.set())
            try:
                yield pace
            except Stopped as error:
                raise CommandError(stopped) from error


class BatchCommand(StoppableCommand):
    """One with `--batch`, which ends after the batch at hand."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Add `--batch`; a command with arguments of its own calls this too."""
        parser.add_argument("--batch", type=positive, default=Pace.rows, help="rows of one transaction")
