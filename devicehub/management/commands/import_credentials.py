"""`manage.py import_credentials FILE --type TYPE`: move a fleet without changes on the devices."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.template.defaultfilters import pluralize
from rich.console import Console
from rich.table import Table

from authsvc.management.command import ReasonedCommand
from devicehub import provisioning
from devicehub.provisioning import credentials_file
from devicehub.provisioning.credentials_file import Row, RowOutcome

SHOWN = 50  # rows of the table; --json shows all


class Command(ReasonedCommand):
    help = (
        "Read usernames and password hashes (mosquitto_passwd, go-auth, Django, passlib) from a password file or "
        "a CSV, and print the outcome of each row. Only --apply writes; refused rows are left out."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="a password file or a CSV, in UTF-8")
        parser.add_argument("--type", required=True, help="the device type of the rows")
        write = parser.add_mutually_exclusive_group()
        write.add_argument(
            "--dry-run", action="store_true", help="only print the outcome of each row (default)"
        )
        write.add_argument("--apply", action="store_true", help="write the rows that are not refused")
        parser.add_argument("--replace", action="store_true", help="overwrite existing credentials")
        parser.add_argument(
            "--utf8-salt", action="store_true", help="read go-auth's salts as text (salt_encoding utf-8)"
        )
        parser.add_argument("--json", action="store_true", help="print every row's verdict as JSON")

    def handle(self, *, file: str, utf8_salt: bool, **options: Any) -> None:
        try:
            kind = provisioning.kind_of(options["type"])
            found = credentials_file.read(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CommandError(f"{file} cannot be read: it is not UTF-8 text") from error
        rows = found.rows
        if found.ignored:
            self.stderr.write(f"Note: these columns are ignored: {', '.join(found.ignored)}")
        credentials_file.judge(rows, kind, utf8_salt=utf8_salt, replace=options["replace"])
        written = credentials_file.write(rows, kind, replace=options["replace"]) if options["apply"] else None
        if options["json"]:
            self.stdout.write(json.dumps([_described(row) for row in rows]))
        else:
            self.stdout.write(_for_people(rows, written))
        if any(row.outcome is RowOutcome.REFUSED for row in rows):
            sys.exit(1)


def _described(row: Row) -> dict[str, Any]:
    """Return the fields of *row* for JSON, without the hash."""
    return {
        "line": row.line,
        "username": row.username,
        "device_id": row.device_id,
        "scheme": row.scheme,
        "verdict": row.outcome.value,
        "problem": row.problem,
    }


def _for_people(rows: list[Row], written: int | None) -> str:
    table = Table()
    for heading in ("line", "username", "device id", "scheme", "verdict"):
        table.add_column(heading)
    ordered = sorted(rows, key=lambda row: row.outcome is not RowOutcome.REFUSED)
    for row in ordered[:SHOWN]:
        verdict = f"{row.outcome}: {row.problem}" if row.problem else row.outcome.value
        table.add_row(str(row.line), row.username[:40], row.device_id[:40], row.scheme, verdict)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    with console.capture() as capture:
        console.print(table)
    counts = Counter(row.outcome for row in rows)
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in RowOutcome)
    more = len(rows) - SHOWN
    rest = f"({more} more row{pluralize(more)}; --json shows all)\n" if more > 0 else ""
    end = "Nothing was written: run it again with --apply."
    if written is not None:
        end = f"{written} device{pluralize(written)} written."
    return f"{capture.get()}{rest}{summary}. {end}"
