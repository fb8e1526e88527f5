"""`manage.py listen_mqtt [--worker N]`: store what devices publish, until it is told to stop."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from devicehub import topics
from devicehub.conf import settings
from devicehub.ingest.message import Outcome
from devicehub.ingest.sweep import EVERY, Sweep
from devicehub.ingest.worker import Worker, settle
from devicehub.mqtt import BrokerAddress, InvalidAddress, Listener, MqttError
from devicehub.upkeep import Upkeep


class Command(BaseCommand):
    help = "Subscribe to the topics of all devices and store what they publish."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--worker", type=int, default=1, help="number of this worker, from 1")

    def handle(self, *, worker: int, **options: Any) -> str:
        group = settings.mqtt_group
        if worker < 1:
            raise CommandError("--worker counts from 1")
        if worker > 1 and not group:
            raise CommandError(
                "--worker above 1 needs DEVICEHUB_MQTT_GROUP: without it each would get everything"
            )
        try:
            address = BrokerAddress.parse(settings.mqtt_url)
        except InvalidAddress as error:
            raise CommandError(str(error)) from error
        filters = [f"$share/{group}/{text}" if group else text for text in topics.subscriptions()]
        listener = Listener(
            address,
            f"{address.username or 'devicehub'}-{worker}",
            filters,
            version=settings.mqtt_version,
            report=self._say,
        )
        running = Worker(listener, self._count)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: running.stop())
        try:
            listener.start()
        except MqttError as error:
            raise CommandError(
                f"{error} (MQTT_URL, DEVICEHUB_MQTT_VERSION={settings.mqtt_version}, "
                f"DEVICEHUB_MQTT_GROUP={group!r})"
            ) from error
        settle()
        upkeep = Upkeep()
        sweep = Sweep(lambda: running.heard_since, stopping=lambda: upkeep.stopping)
        upkeep.add("sweep", EVERY, sweep.run)
        upkeep.start()
        running.run()
        upkeep.stop()
        listener.stop()
        if listener.failure:
            raise CommandError(listener.failure)
        return f"Stopped. {_described(running.outcomes)}"

    def _say(self, text: str) -> None:
        self.stderr.write(text)

    def _count(self, outcomes: Counter[Outcome]) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"\r{_described(outcomes)}", ending="")


def _described(outcomes: Counter[Outcome]) -> str:
    return ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome)
