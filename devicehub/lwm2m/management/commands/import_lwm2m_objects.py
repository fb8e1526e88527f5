"""`manage.py import_lwm2m_objects PATH...`: import definitions of LwM2M objects from XML of the OMA registry."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from authsvc.management.command import DatabaseCommand
from devicehub.lwm2m import definitions
from devicehub.lwm2m.definitions import Outcome, Report

SHOWN = 100  # rows of the table; --json shows all
ORDER = [Outcome.REFUSED, Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED]


class Command(DatabaseCommand):
    help = (
        "Import definitions of LwM2M objects from XML files, such as those of the OMA registry, and print the result "
        "for each object. A file that cannot be read does not stop the others."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "path", nargs="+", type=Path, help="a file, or a folder whose .xml files are read"
        )
        parser.add_argument("--json", action="store_true", help="print the results as JSON")

    def handle(self, *, path: list[Path], **options: Any) -> None:
        reports = list(definitions.import_files(path))
        if options["json"]:
            self.stdout.write(json.dumps([report._asdict() for report in reports]))
        else:
            shown = _table(reports) if sys.stdout.isatty() else "\n".join(map(_line, reports))
            self.stdout.write(f"{shown}\n{_summary(reports)}".lstrip())
        if any(report.outcome is Outcome.REFUSED for report in reports):
            sys.exit(1)


def _line(report: Report) -> str:
    """Return a result in one line.

    >>> _line(Report("pump.xml", Outcome.CREATED, 33000, "1.1", "Pump"))
    'created 33000 1.1 Pump (pump.xml)'
    """
    subject = f"{report.object_id} {report.version} {report.name} ({report.file})"
    if report.object_id is None:
        subject = report.file
    return f"{report.outcome} {subject}" + (f": {report.reason}" if report.reason else "")


def _table(reports: list[Report]) -> str:
    table = Table("object", "version", "name", "result", "file")
    for report in sorted(reports, key=lambda report: ORDER.index(report.outcome))[:SHOWN]:
        object_id = "" if report.object_id is None else str(report.object_id)
        result = f"{report.outcome}: {report.reason}" if report.reason else report.outcome
        cells = (object_id, report.version, report.name, result, Path(report.file).name)
        table.add_row(*map(Text, cells))  # rich would read brackets in a str as markup.
    console = Console(file=sys.stdout)
    with console.capture() as capture:
        console.print(table)
    more = len(reports) - SHOWN
    return capture.get() + (f"({more} more; --json shows all)\n" if more > 0 else "")


def _summary(reports: list[Report]) -> str:
    counts = Counter(report.outcome for report in reports)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome)
