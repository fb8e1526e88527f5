"""`manage.py provision_devices TYPE`: create devices with credentials, by a count or from a table."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.template.defaultfilters import pluralize
from rich.console import Console
from rich.progress import Progress

from authsvc import audit
from authsvc.management.command import ReasonedCommand
from devicehub import provisioning
from devicehub.bulk import imports, table_file
from devicehub.bulk.issued import Issued, entry
from devicehub.bulk.xlsx_package import UnreadableTable
from devicehub.kinds.registry import Kind
from devicehub.management.credentials_output import credentials_output, flush
from devicehub.models import validate_device_id

BEGIN = "["  # The file begins with this.
SHOWN = 50  # Rows with errors that are printed.


class Command(ReasonedCommand):
    help = "Create devices and write their credentials to a new file that only its owner can read."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "type", help="the device type, such as weatherstation; with --from that of rows without"
        )
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--count", type=int, help="number of devices")
        source.add_argument(
            "--from",
            dest="table",
            help="a CSV or XLSX file: its first line names device_id and, if you like, name, site, type; "
            "other columns become metadata",
        )
        parser.add_argument("--prefix", help="with --count: ids are PREFIX001, PREFIX002, ...")
        parser.add_argument(
            "--output", help="a new file, CSV if its name ends in .csv, or - for standard output"
        )
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="with --from: print the verdicts of the rows, and create nothing",
        )

    def handle(self, **options: Any) -> None:
        output = options["output"]
        if not output and not options["dry_run"]:
            raise CommandError("--output is needed: a new file for the credentials, or - for standard output")
        try:
            kind = provisioning.kind_of(options["type"])
            if options["table"]:
                self._import(kind, options["table"], output, options["dry_run"])
            else:
                self._count(kind, options)
        except FileExistsError as error:
            raise CommandError(f"{output} exists already; give the name of a new file") from error

    def _count(self, kind: Kind, options: dict[str, Any]) -> None:
        count, prefix, output = options["count"], options["prefix"], options["output"]
        if count < 1:
            raise CommandError("--count must be 1 or more")
        if prefix is None or options["dry_run"]:
            raise CommandError("--count needs --prefix, and --dry-run needs --from")
        try:
            validate_device_id(f"{prefix}001")
            with _opened(output) as file:
                self._provision(kind, prefix, count, file, output)
        except FileExistsError:
            raise
        except OSError as error:
            raise CommandError(f"{output} cannot be written: {error.strerror}") from error
        self.stderr.write(f"Provisioned {count} device{pluralize(count)} of type {kind.slug}")

    def _provision(self, kind: Kind, prefix: str, count: int, file: IO[str], name: str) -> None:
        """Create the devices. Each line is on the disk before the commit of its device, so no crash loses one."""
        file.write(BEGIN)
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            ids = provisioning.next_ids(kind, prefix, count)
            for number, device_id in enumerate(progress.track(ids, total=count, description=kind.slug)):
                with transaction.atomic():
                    device, credentials = provisioning.create(kind, device_id)
                    if not number:
                        _record_shown(kind, name)
                    line = json.dumps(entry(kind, device, credentials))
                    file.write(f"{',' if number else ''}\n {line}")
                    flush(file)
        file.write("\n]\n")

    def _import(self, kind: Kind, table: str, output: str | None, dry_run: bool) -> None:
        """Judge the rows of the file *table*, and create the new ones unless *dry_run*. Exit with 1 after an error."""
        try:
            with open(table, "rb") as source:
                counts = self._import_rows(kind, source, None if dry_run else output)
        except FileExistsError:
            raise
        except OSError as error:
            raise CommandError(f"{error.filename or table}: {error.strerror}") from error
        except UnreadableTable as error:
            raise CommandError(f"{table}: {error}") from error
        created = f"{counts['new']} {'new' if dry_run else 'created'}"
        self.stderr.write(f"{created}, {counts['exists']} exist, {counts['error']} refused")
        if counts["error"]:
            sys.exit(1)

    def _import_rows(self, kind: Kind, source: IO[bytes], output: str | None) -> Counter[str]:
        for _ in table_file.read(source):
            pass  # A fault in the last line is reported before the first device is created.
        rows = table_file.read(source)
        _, headings = next(rows)
        columns = imports.guess(headings)
        imports.check_columns(columns)
        counts: Counter[str] = Counter()
        with contextlib.nullcontext() if output is None else credentials_output(output) as written:
            limits = imports.Limits()

            def write(found: list[Issued]) -> None:
                if written is not None and output is not None:
                    if found and not written.count:
                        _record_shown(kind, output)
                    written.add(found)

            for candidates in imports.judge(rows, headings, columns, kind, limits, compared=written is None):
                if written is not None:
                    imports.create(candidates, limits, before_commit=write)
                counts.update(candidate.verdict for candidate in candidates)
                self._report(candidates, counts["error"])
        return counts

    def _report(self, candidates: list[imports.Candidate], errors: int) -> None:
        """Print the rows with an error, SHOWN at most in all."""
        found = [candidate for candidate in candidates if candidate.verdict == "error"]
        left = SHOWN - (errors - len(found))
        for candidate in found[: max(left, 0)]:
            column = f"{candidate.column}: " if candidate.column else ""
            self.stderr.write(f"Line {candidate.line}: {column}{candidate.problem}")
        if 0 <= left < len(found):
            self.stderr.write("Further rows with errors are counted only")


def _record_shown(kind: Kind, output: str) -> None:
    """Record that the file *output* gets new credentials. The transaction of its first device holds the entry."""
    name = "standard output" if output == "-" else os.path.basename(output)
    audit.record("credentials_shown", f"provision/{kind.slug}", after={"file": name})


@contextlib.contextmanager
def _opened(output: str) -> Iterator[IO[str]]:
    if output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="") as file:
            yield file
    except (provisioning.IdentityTaken, ValidationError):
        if os.path.getsize(output) <= len(BEGIN):  # No device was created, so the same call can be retried.
            os.remove(output)
        raise
