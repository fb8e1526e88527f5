"""`manage.py simulate_devices TYPE --count N`: run devices that connect and publish, each with its own login."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser

from authsvc.management.command import DatabaseCommand
from devicehub import provisioning
from devicehub.conf import settings
from devicehub.mqtt import BrokerAddress, allow_files
from devicehub.simulation.faults import Faults
from devicehub.simulation.logins import issue_logins
from devicehub.simulation.run import Result, Simulation, any_seed


class Command(DatabaseCommand):
    help = "Simulate devices of a type. Every start creates them, or gives existing ones new credentials."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("--count", type=int, default=8, help="number of devices (default: %(default)s)")
        parser.add_argument("--prefix", default="SIM-", help="ids are PREFIX001, PREFIX002, ...")
        parser.add_argument(
            "--interval",
            type=float,
            default=5.0,
            help="seconds between two messages of a device (default: %(default)s)",
        )
        parser.add_argument(
            "--duration",
            type=float,
            help="seconds to publish after all have connected (default: until ctrl-c)",
        )
        parser.add_argument(
            "--history",
            type=int,
            default=900,
            help="seconds of older samples that each device sends at first (default: %(default)s)",
        )
        parser.add_argument(
            "--misbehave", action="store_true", help="let the last device publish to its neighbour's topic"
        )
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
        self._add_faults(parser)

    def _add_faults(self, parser: CommandParser) -> None:
        faults = parser.add_argument_group("faults", "faults of the devices (default: none)")
        percent: dict[str, Any] = {"type": float, "default": 0.0, "metavar": "PERCENT"}
        faults.add_argument(
            "--bad-payloads", help="share of data messages that hold junk of ten kinds", **percent
        )
        faults.add_argument(
            "--duplicates",
            help="share of data messages that are sent twice, at once or some turns later",
            **percent,
        )
        faults.add_argument(
            "--late",
            help="share of samples that are held back and sent 3 to 10 in one array, half of the arrays shuffled",
            **percent,
        )
        faults.add_argument(
            "--burst", type=int, default=0, metavar="N", help="send N messages at once in one turn of 50"
        )
        faults.add_argument(
            "--seed",
            type=int,
            help="repeat the faults of the run with this number (default: a random number, which is printed)",
        )

    def handle(self, *, count: int, prefix: str, duration: float | None, **options: Any) -> str:
        _check(count, duration, options)
        running: list[Simulation] = []

        def stop(*_: object) -> None:
            if not running:
                raise KeyboardInterrupt
            running[0].stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        try:
            running.append(self._prepared(count, prefix, options))
            result = running[0].run(duration)
        except KeyboardInterrupt as error:
            raise CommandError("Stopped before anything was published") from error
        return self._summary(result, options["json"])

    def _prepared(self, count: int, prefix: str, options: dict[str, Any]) -> Simulation:
        faults = _faults(options)
        kind = provisioning.kind_of(options["type"])
        allow_files(count)
        BrokerAddress.parse(settings.mqtt_url)  # A wrong URL must not change the credentials of thousands.
        return Simulation(
            kind,
            issue_logins(kind, prefix, count, self._progress("made", count)),
            interval=options["interval"],
            misbehave=options["misbehave"],
            history=options["history"],
            faults=faults,
            report=self.stderr.write,
            progress=self._progress("connected", count),
        )

    def _summary(self, result: Result, as_json: bool) -> str:
        if not result.tally.published:
            raise CommandError("Nothing was published: check the refusals above, and MQTT_URL")
        return json.dumps(result.as_dict()) if as_json else str(result)

    def _progress(self, what: str, count: int) -> Callable[[int], None]:
        """Return a function that shows progress on one line of a terminal, and does nothing elsewhere."""
        if not self.stderr.isatty():
            return lambda _: None
        shown = [-1]

        def show(done: int) -> None:
            if done != shown[0]:
                shown[0] = done
                end = "\n" if done >= count else ""
                self.stderr.write(f"\r\x1b[K{done:,} of {count:,} devices {what}", ending=end)
                self.stderr.flush()

        return show


def _check(count: int, duration: float | None, options: dict[str, Any]) -> None:
    if count < 1 or not 0 < options["interval"] < math.inf:
        raise CommandError("--count must be 1 or more and --interval above 0")
    if duration is not None and not duration > 0:
        raise CommandError("--duration must be above 0")
    if not 0 <= options["history"] <= 86_400:
        raise CommandError("--history must be 0 to 86400")


def _faults(options: dict[str, Any]) -> Faults:
    seed = any_seed() if options["seed"] is None else options["seed"]
    names = ("bad_payloads", "duplicates", "late", "burst")
    return Faults(seed=seed, **{name: options[name] for name in names})
