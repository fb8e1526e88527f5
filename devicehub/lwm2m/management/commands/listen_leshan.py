"""`manage.py listen_leshan URL`: follow the endpoints of a Leshan server, until a signal stops it."""

from __future__ import annotations

import contextlib
import signal
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError, CommandParser

from authsvc import audit
from authsvc.management.command import DatabaseCommand
from devicehub.conf import settings
from devicehub.lwm2m.leshan.address import Address
from devicehub.lwm2m.leshan.exposition import OfFollower
from devicehub.lwm2m.leshan.plans import Wish, wish
from devicehub.lwm2m.leshan.process import Process
from devicehub.management.place import place
from devicehub.messages.message import Outcome
from devicehub.worker import exposition


class Command(DatabaseCommand):
    help = "Follow a Leshan server: store the registrations and values of its endpoints, and observe them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "url", help="the address of the Leshan server, such as http://leshan.internal:8080"
        )
        parser.add_argument(
            "--observe",
            action="append",
            type=_wish,
            metavar="PATH",
            help="a path to observe in place of DEVICEHUB_LESHAN_OBSERVE, such as 3303/0/5700, or 3303/*/5700 for "
            "all instances; paths with + between them are one composite observation; may be given several times",
        )

        parser.add_argument(
            "--metrics",
            type=place,
            metavar="[HOST:]PORT",
            help="serve metrics for Prometheus at this address (default host: 127.0.0.1)",
        )

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command. It is the actor of the changes that its threads make."""
        with audit.process(audit.system("listen_leshan")):
            return super().execute(*args, **options)

    def handle(
        self,
        *,
        url: str,
        observe: list[Wish] | None = None,
        metrics: tuple[str, int] | None = None,
        **options: Any,
    ) -> str:
        address = Address.parse(url, settings.leshan_password)
        process = Process(address, _configured() if observe is None else observe, self._report)
        if metrics is not None:
            _expose(process, *metrics)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.stop())
        process.run()
        counted = ", ".join(f"{process.outcomes[outcome]} {outcome}" for outcome in Outcome)
        if process.lost:
            raise CommandError(
                f"Stopped while the database was away: {process.lost} messages are not stored. {counted}"
            )
        return f"Stopped. {counted}"

    def _report(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # A full disk or a closed pipe must not end ingest.
            self.stderr.write(text)


def _expose(process: Process, host: str, port: int) -> None:
    try:
        exposition.serve(host, port, OfFollower(process))
    except OSError as error:
        raise CommandError(f"--metrics: cannot listen on {host}, port {port} ({error})") from error


def _wish(text: str) -> Wish:
    try:
        return wish(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def _configured() -> list[Wish]:
    """Return the paths of DEVICEHUB_LESHAN_OBSERVE. Raise CommandError."""
    try:
        return [wish(text) for text in settings.leshan_observe]
    except ValueError as error:
        raise CommandError(f"DEVICEHUB_LESHAN_OBSERVE: {error}") from error
