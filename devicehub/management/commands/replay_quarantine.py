"""`manage.py replay_quarantine`: try again to store quarantined messages."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser
from django.template.defaultfilters import pluralize
from rich.console import Console
from rich.progress import Progress

from authsvc.management.command import DatabaseCommand
from devicehub.commands.description import printable
from devicehub.ingest.replay import replay, waiting
from devicehub.messages.message import FailureReason, Outcome


class Command(DatabaseCommand):
    help = "Send quarantined messages through ingest again. A message is stored at most once."
    stopping = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--reason",
            choices=[reason.value for reason in FailureReason],
            default="",
            help="only messages that failed for this reason",
        )
        parser.add_argument(
            "--device", default="", help="only messages of this device, such as weatherstation/STATION-001"
        )
        parser.add_argument("--id", type=int, help="only the row with this number")
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")
        parser.add_argument("--json", action="store_true", help="print the counts as JSON")

    def handle(self, *, reason: str, device: str, dry_run: bool, **options: Any) -> str:
        rows = waiting(reason=reason, device_key=device, row=options["id"])
        count = rows.count()
        if dry_run:
            if options["json"]:
                return json.dumps({"waiting": count})
            return f"{count} message{pluralize(count)} would be replayed"
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("replay", total=count)
            report = replay(rows, goes_on=lambda: not self.stopping, on_each=lambda: progress.advance(task))
        if options["json"]:
            counts = {outcome.value: report.outcomes[outcome] for outcome in Outcome}
            return json.dumps(counts | {"failures": [asdict(failure) for failure in report.failures]})
        return "\n".join(printable(line) for line in report.lines())

    def _stop(self, *_: Any) -> None:
        self.stopping = True
