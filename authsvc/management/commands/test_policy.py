"""`manage.py test_policy FILE.yaml`: check expectations about decisions, for the CI of a site."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from authsvc.management.command import DatabaseCommand
from authsvc.operation.explain import run
from authsvc.operation.policy_tests import Result, UnreadablePolicy, read, run_tests


class Command(DatabaseCommand):
    help = "Check a file of expectations. Exit code 1 if one is not met, 2 for a file that cannot be read."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file", help="a YAML file: a list of who, action, topic, and expect: allow or deny"
        )
        parser.add_argument("--json", action="store_true", help="print all results as JSON")

    def handle(self, *, file: str, **options: Any) -> None:
        try:
            tests = read(Path(file))
        except UnreadablePolicy as error:
            raise CommandError(_printable(str(error)), returncode=2) from error
        results = run(run_tests(tests))
        counts = Counter("passed" if result.passed else "failed" for result in results)
        if options["json"]:
            found = [result.as_dict() for result in results]
            self.stdout.write(
                json.dumps({"passed": counts["passed"], "failed": counts["failed"], "tests": found})
            )
        else:
            for result in results:
                if not result.passed:
                    self.stdout.write(_printable(f"FAIL {file}:{result.test.line} {_described(result)}"))
            self.stdout.write(_summary(counts))
        if counts["failed"]:
            sys.exit(1)


def _described(result: Result) -> str:
    asked = result.test
    return " ".join(filter(None, (asked.who, asked.action, asked.topic))) + f": {result.failure}"


def _summary(counts: Counter[str]) -> str:
    total = counts.total()
    return f"{total} test{'' if total == 1 else 's'}: {counts['passed']} passed, {counts['failed']} failed"


def _printable(text: str) -> str:
    """Return *text* without characters that would control a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
