"""`manage.py listen_mqtt [--worker N]`: store the messages of devices, until a signal stops it.

It also manages the worker's session at the broker: create it, replace it, or retire it.
"""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from authsvc import audit
from authsvc.management.command import DatabaseCommand
from devicehub.conf import settings
from devicehub.management.place import place
from devicehub.messages.message import Outcome
from devicehub.mqtt import SESSION_EXPIRY
from devicehub.worker.loop import Worker
from devicehub.worker.process import Identity, Process


class Command(DatabaseCommand):
    help = "Subscribe to the topics of all devices and store their messages."
    is_short = False  # True for a call that ends by itself and prints one line.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--worker", type=int, default=1, help="number of this worker, from 1 (default: %(default)s)"
        )
        parser.add_argument(
            "--metrics",
            type=place,
            metavar="[HOST:]PORT",
            help="serve metrics for Prometheus at this address (default host: 127.0.0.1)",
        )

        only = parser.add_mutually_exclusive_group()
        only.add_argument(
            "--subscribe-only",
            action="store_true",
            help="create the session at the broker, which keeps messages from then on, and exit",
        )
        only.add_argument(
            "--retire",
            action="store_true",
            help="end the subscriptions of this worker, store the messages that wait for it, and exit",
        )
        parser.add_argument(
            "--begin-anew",
            action="store_true",
            help="first end the session at the broker; the messages that wait there for this worker are lost",
        )

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the worker. It is the actor of the changes that its threads make."""
        with audit.process(audit.system("listen_mqtt")):
            return super().execute(*args, **options)

    def handle(
        self,
        *,
        worker: int,
        metrics: tuple[str, int] | None = None,
        subscribe_only: bool = False,
        retire: bool = False,
        begin_anew: bool = False,
        **options: Any,
    ) -> str:
        if retire and begin_anew:
            raise CommandError(
                "--retire stores the messages that --begin-anew discards: use only one of them"
            )
        self.is_short = subscribe_only or retire
        process = Process(Identity.of(worker, retires=retire), report=self._report, on_batch=self._count)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.stop())
        if metrics is not None:
            _expose(process, *metrics)
        process.connect(begin_anew=begin_anew)
        if subscribe_only:
            return _subscribed(process.identity, was_resumed=process.subscribe())
        if retire:
            process.retire()
            return (
                f"Retired {process.identity}: it has no subscription any more. {_described(process.worker)}"
            )
        process.run()
        return f"Stopped. {_described(process.worker)}"

    def _report(self, text: str) -> None:
        if self.is_short and text.startswith("connected to"):
            return
        with contextlib.suppress(OSError, ValueError):  # A full disk or a closed pipe must not end ingest.
            self.stderr.write(text)

    def _count(self, outcomes: Counter[Outcome]) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self.stderr.isatty():
                self.stderr.write(f"\r{_counted(outcomes)}", ending="")


def _expose(process: Process, host: str, port: int) -> None:
    try:
        process.serve_metrics(host, port)
    except OSError as error:
        raise CommandError(f"--metrics: cannot listen on {host}, port {port} ({error})") from error


def _subscribed(identity: Identity, *, was_resumed: bool) -> str:
    days = f", for up to {SESSION_EXPIRY // 86400} days" if settings.mqtt_version == "5" else ""
    new = "" if was_resumed else " in a new session"
    return f"Subscribed as {identity}{new}: the broker keeps messages of devices from now on{days}"


def _described(worker: Worker) -> str:
    unwanted = f", {worker.unwanted} ignored from earlier settings" if worker.unwanted else ""
    return f"{_counted(worker.outcomes)}{unwanted}"


def _counted(outcomes: Counter[Outcome]) -> str:
    return ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome)
