"""`manage.py simulate_devices TYPE --count N`: devices that connect and publish, each with its own login."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from devicehub import provisioning
from devicehub.simulation import NotSimulated, Simulation, enlist


class Command(BaseCommand):
    help = "Simulate devices of a type. They are made, or their credentials issued anew, at every start."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("--count", type=int, default=8)
        parser.add_argument("--prefix", default="SIM-", help="ids are PREFIX001, PREFIX002, ...")
        parser.add_argument(
            "--interval", type=float, default=5.0, help="seconds between two messages of a device"
        )
        parser.add_argument("--duration", type=float, help="seconds to run; without it until ctrl-c")
        parser.add_argument(
            "--misbehave", action="store_true", help="the last one tries its neighbour's topic"
        )

    def handle(
        self, *, count: int, prefix: str, interval: float, duration: float | None, **options: Any
    ) -> str:
        if count < 1 or interval <= 0:
            raise CommandError("--count must be 1 or more and --interval above 0")
        try:
            kind = provisioning.kind_of(options["type"])
            logins = enlist(kind, prefix, count)
        except (provisioning.UnknownKind, provisioning.IdentityTaken, NotSimulated, ValueError) as error:
            raise CommandError(str(error)) from error
        simulation = Simulation(
            kind, logins, interval=interval, misbehave=options["misbehave"], report=self.stderr.write
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: simulation.stop())
        simulation.run(duration)
        if not simulation.published:
            raise CommandError("Nothing was published: see the refusals above, and MQTT_URL")
        return f"Published {simulation.published} messages as {count} devices"
