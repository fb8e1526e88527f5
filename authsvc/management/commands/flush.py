"""`manage.py flush`: Django's command, which also empties the audit: it drops the triggers that keep the entries."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import flush

from authsvc.audit import triggers
from authsvc.management.command import DatabaseCommand

QUESTION = "This deletes all rows of all tables, the audit too, and cannot be undone. Type yes to go on: "


class Command(DatabaseCommand, flush.Command):
    def handle(self, **options: Any) -> None:
        """Empty all tables, the audit too, and create its triggers again. Tests of projects empty tables so.

        The triggers stay until the question is answered.
        """
        if options["interactive"] and input(QUESTION) != "yes":
            self.stdout.write("Nothing was deleted.")
            return
        triggers.drop(options["database"])
        try:
            super().handle(**{**options, "interactive": False})
        finally:
            triggers.install(options["database"])
