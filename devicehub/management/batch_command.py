"""What commands that change many rows have in common: they go in batches, count, and stop between two of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError, CommandParser

from authsvc.management.command import DatabaseCommand
from devicehub.db.batches import Pace, Stopped
from devicehub.management.progress import counting, positive


class BatchCommand(DatabaseCommand):
    """A command with `--batch` that ends after the batch at hand on SIGTERM and on ctrl-c."""

    verb = "deleted"  # what happens to the rows that are counted on a terminal
    batch_help = "rows of one transaction"

    def add_arguments(self, parser: CommandParser) -> None:
        """Add `--batch`; a command with arguments of its own calls this too."""
        parser.add_argument("--batch", type=positive, default=Pace.rows, help=self.batch_help)

    @contextmanager
    def pace(self, batch: int, *, stopped: str) -> Iterator[Pace]:
        """Give the pace of the block, which a signal ends. CommandError with the text *stopped* when one did."""
        with counting(self.stderr, self.verb) as report:
            pace = Pace(rows=batch, report=report)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: pace.stop.set())
            try:
                yield pace
            except Stopped as error:
                raise CommandError(stopped) from error
