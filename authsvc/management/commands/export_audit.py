"""`manage.py export_audit [--from DATE] [--to DATE] [--as csv|ndjson]`: write entries of the audit, newest first."""

from __future__ import annotations

import contextlib
import os
from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any, TextIO

from django.core.management.base import CommandError, CommandParser

from authsvc.audit import export
from authsvc.management.command import DatabaseCommand
from authsvc.models import AuditEntry


def moment(text: str) -> datetime:
    """Return *text*, a date or a time in ISO 8601, as a time; of UTC if it has no zone. Raise ArgumentTypeError."""
    try:
        found = (
            datetime.fromisoformat(text)
            if len(text) > 10
            else datetime.combine(date.fromisoformat(text), time())
        )
    except ValueError as error:
        raise ArgumentTypeError(
            f"{text!r} is not a date; write 2026-01-31 or 2026-01-31T08:00:00Z"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Command(DatabaseCommand):
    help = "Write the entries of the audit, newest first, as CSV or as one JSON object per line."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from", type=moment, dest="since", metavar="DATE", help="first day, or time (default: all)"
        )
        parser.add_argument(
            "--to",
            type=moment,
            dest="until",
            metavar="DATE",
            help="day or time before which to end (default: now)",
        )
        parser.add_argument(
            "--object", default="", help="only this object, such as weatherstation/STATION-001"
        )
        parser.add_argument(
            "--as", choices=list(export.FORMS), default="csv", dest="form", help="its form (default: csv)"
        )
        parser.add_argument("--output", default="-", help="a new file, or - for standard output (default)")

    def handle(
        self, *, since: datetime | None, until: datetime | None, form: str, output: str, **options: Any
    ) -> None:
        rows = AuditEntry.objects.all()
        rows = rows.filter(at__gte=since) if since else rows
        rows = rows.filter(at__lt=until) if until else rows
        rows = rows.filter(object_key=options["object"]) if options["object"] else rows
        write, _ = export.FORMS[form]
        try:
            with self._opened(output) as file:
                for text in write(rows):
                    file.write(text)
        except FileExistsError as error:
            raise CommandError(f"{output} exists already; give the name of a new file") from error
        except OSError as error:
            raise CommandError(f"{output} cannot be written: {error.strerror}") from error

    @contextlib.contextmanager
    def _opened(self, output: str) -> Iterator[TextIO]:
        """Yield the file to write to. Only its owner can read it, since it names people and addresses."""
        if output == "-":
            yield self.stdout._out  # type: ignore[misc] # The wrapper would add a line end to each text.
            return
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="") as file:
            yield file
