"""Base classes of long commands: a signal stops them, and commands that change many rows work in batches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError, CommandParser

from authsvc.management.command import DatabaseCommand
from devicehub.db.batches import Pace, Stopped
from devicehub.management.progress import counting, positive


class StoppableCommand(DatabaseCommand):
    """A long command that stops cleanly on SIGTERM and on ctrl-c."""

    verb = "deleted"  # The line of progress on a terminal says this of the rows.

    @contextmanager
    def pace(self, batch: int = Pace.rows, *, stopped: str) -> Iterator[Pace]:
        """Yield the pace of the block, which a signal stops. Raise CommandError with the text *stopped* then."""
        with counting(self.stderr, self.verb) as report:
            pace = Pace(rows=batch, report=report)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: pace.stop.set())
            try:
                yield pace
            except Stopped as error:
                raise CommandError(stopped) from error


class BatchCommand(StoppableCommand):
    """A command with `--batch`. It stops after the current batch."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Add `--batch`; a command with arguments of its own calls this too."""
        parser.add_argument(
            "--batch",
            type=positive,
            default=Pace.rows,
            help="rows per transaction (default: %(default)s)",
        )
