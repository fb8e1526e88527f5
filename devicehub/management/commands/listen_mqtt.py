"""`manage.py listen_mqtt [--worker N]`: store what devices publish, until it is told to stop.

Also what there is to do about the session of such a worker at the broker: make it, begin it anew, give it up.
"""

from __future__ import annotations

import contextlib
import signal
import time
from argparse import ArgumentTypeError
from collections import Counter
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import InterfaceError, OperationalError, connection, connections

from authsvc.core import topics as filters
from authsvc.management.command import DatabaseCommand, lacks_tables
from devicehub import commands, removal
from devicehub.conf import settings
from devicehub.db.batches import Pace, Stopped
from devicehub.history import rollups
from devicehub.kinds import topics
from devicehub.messages.message import Outcome
from devicehub.mqtt import SESSION_EXPIRY, BrokerAddress, Connection, InvalidAddress, Listener, MqttError
from devicehub.removal import disabled
from devicehub.retention import partitions
from devicehub.worker import admission, exposition, sessions, wal_checkpoints
from devicehub.worker.durability import settle
from devicehub.worker.loop import BATCH, POLL, RETRY, Worker
from devicehub.worker.peers import Share
from devicehub.worker.periodic import Upkeep
from devicehub.worker.silence import EVERY, Sweep
from devicehub.worker.wal_checkpoints import Checkpoints

SEND_EVERY = 1.0  # seconds between two looks for commands that are due
ROLL_UP_EVERY = 60.0
REMOVE_EVERY = 15.0
EXTEND_EVERY = 3600.0
SETTLE_SECONDS = 30.0  # for the broker to answer what concerns former subscriptions
QUIET = 3.0  # seconds without a message, after which nothing waits in a session that is given up


class Command(DatabaseCommand):
    help = "Subscribe to the topics of all devices and store what they publish."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--worker", type=int, default=1, help="number of this worker, from 1")
        parser.add_argument(
            "--metrics",
            type=_endpoint,
            metavar="[HOST:]PORT",
            help="answer Prometheus there; the host is 127.0.0.1 if not given",
        )

        only = parser.add_mutually_exclusive_group()
        only.add_argument(
            "--subscribe-only",
            action="store_true",
            help="make the session at the broker, which keeps messages from then on, and end",
        )
        only.add_argument(
            "--retire",
            action="store_true",
            help="end the subscriptions of this worker, store what waits for it, and end",
        )
        parser.add_argument(
            "--begin-anew",
            action="store_true",
            help="first end the session at the broker: what waits there for this worker is lost",
        )

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
            raise CommandError("--retire stores what --begin-anew would lose: give one of them")
        self._is_short = subscribe_only or retire
        address, client_id, wanted = self._settings(worker, retire=retire)
        listener = self._listener(address, client_id, wanted)
        running = Worker(listener, self._count, topics.is_subscribed)

        def stop(*_: Any) -> None:
            running.stop()
            listener.interrupt()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        if metrics is not None:
            _expose(*metrics, listener, running)
        settle()
        try:
            former = self._remember(running, client_id, [*wanted, *settings.mqtt_drops] if wanted else [])
            if begin_anew and not running.stopping:
                Connection(address, client_id, version=settings.mqtt_version).close()
                self._say(
                    f"ended the session of {client_id} at {_where(address)}: what waited in it is lost, "
                    "and nothing is kept for this worker until it has subscribed again"
                )
            if not running.stopping:
                listener.start(former)
        except MqttError as error:
            raise CommandError(
                f"{error} (MQTT_URL, DEVICEHUB_MQTT_VERSION={settings.mqtt_version}, "
                f"DEVICEHUB_MQTT_GROUP={settings.mqtt_group!r})"
            ) from error
        place = f"{client_id} at {_where(address)}"
        if subscribe_only:
            return self._subscribe_only(running, listener, place)
        if retire:
            return self._retire(running, listener, place)
        upkeep = _upkeep(running, Share(settings.mqtt_group, client_id))
        with running:
            if not running.stopping:
                upkeep.start()
            running.run()
            upkeep.stop()
            commands.close()
            listener.stop()
        if listener.failure:
            raise CommandError(listener.failure)
        return f"Stopped. {_described(running)}"

    def _settings(self, worker: int, *, retire: bool) -> tuple[BrokerAddress, str, list[str]]:
        """Return the broker, the client id and the filters; settings that cannot be used are a CommandError."""
        group = settings.mqtt_group
        if worker < 1:
            raise CommandError("--worker counts from 1")
        if worker > 1 and not (group or retire):
            raise CommandError(
                "--worker above 1 needs DEVICEHUB_MQTT_GROUP: without it each would get everything"
            )
        try:
            address = BrokerAddress.parse(settings.mqtt_url)
        except InvalidAddress as error:
            raise CommandError(str(error)) from error
        for topic in settings.mqtt_drops:
            # A wildcard or a device's topic would keep readings from being stored.
            if not filters.is_topic(topic) or topics.parse(topic) is not None:
                raise CommandError(
                    f"DEVICEHUB_MQTT_DROPS holds {topic!r}, which is no topic of a broker's counter"
                )
        wanted = [] if retire else [topics.shared(text, group) for text in topics.subscriptions()]
        return address, f"{address.username or 'devicehub'}-{worker}", wanted

    def _listener(self, address: BrokerAddress, client_id: str, wanted: list[str]) -> Listener:
        return Listener(
            address,
            client_id,
            wanted,
            version=settings.mqtt_version,
            drops=settings.mqtt_drops if wanted else [],
            report=self._report,
            judge=partial(admission.refusal, address, client_id, wanted),
        )

    def _remember(self, running: Worker, client_id: str, wanted: list[str]) -> list[str]:
        """Write the filters down before the broker gets them; return those of earlier settings.

        Waits for a database that is away, until the worker is stopped.
        """
        attempts, said = 0, ""
        while not running.stopping:
            try:
                return sessions.remember(client_id, wanted)
            except (OperationalError, InterfaceError) as error:
                if lacks_tables(error):
                    raise
                text = f"the database does not answer ({str(error).partition(chr(10))[0]}), trying again"
            if text != said:
                self._say(text)
            said = text
            connections.close_all()
            attempts += 1
            end = time.monotonic() + RETRY.after(attempts)
            while not running.stopping and time.monotonic() < end:
                time.sleep(POLL)
        return []

    def _subscribe_only(self, running: Worker, listener: Listener, place: str) -> str:
        self._settled(running, listener)
        was_resumed = listener.is_resumed
        listener.stop()
        if listener.failure:
            raise CommandError(listener.failure)
        if running.stopping:
            raise CommandError(f"Stopped before {place} had subscribed")
        days = f", for up to {SESSION_EXPIRY // 86400} days" if settings.mqtt_version == "5" else ""
        new = "" if was_resumed else " in a new session"
        return f"Subscribed as {place}{new}: the broker keeps what devices publish from now on{days}"

    def _settled(self, running: Worker, listener: Listener) -> None:
        """Wait until the session is as it shall be. What is handed over meanwhile is dropped and comes again."""
        end = None
        while not (listener.is_settled or listener.failure or running.stopping):
            listener.take(BATCH, timeout=POLL)
            if listener.listening_since is None:
                end = None
            elif end is None:
                end = time.monotonic() + SETTLE_SECONDS
            elif time.monotonic() > end:
                listener.stop()
                raise CommandError(
                    "the broker does not answer the end of former subscriptions; run this again"
                )

    def _retire(self, running: Worker, listener: Listener, place: str) -> str:
        with running:
            running.run(quiet=QUIET)
            is_stopped = running.stopping
            listener.stop()
        if listener.failure:
            raise CommandError(listener.failure)
        if is_stopped:
            raise CommandError(f"Stopped before all was stored that waited for {place}; run this again")
        sessions.forget(listener.client_id)
        return f"Retired {place}: it has no subscription any more. {_described(running)}"

    def _report(self, text: str) -> None:
        if not (self._is_short and text.startswith("connected to")):  # one line says what such a command did
            self._say(text)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed pipe must not end ingest
            self.stderr.write(text)

    def _count(self, outcomes: Counter[Outcome]) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self.stderr.isatty():
                self.stderr.write(f"\r{_counted(outcomes)}", ending="")


def _upkeep(running: Worker, share: Share) -> Upkeep:
    """What the worker does beside storing."""
    upkeep = Upkeep()
    sweep = Sweep(
        lambda: running.heard_since,
        heard_until=lambda: running.heard_until,
        share=share,
        tell=running.announcer.tell_transitions,
        stopping=lambda: upkeep.stopping,
    )
    upkeep.add("sweep", EVERY, sweep.run)
    upkeep.add("commands", SEND_EVERY, commands.send_due)
    upkeep.add("rollups", ROLL_UP_EVERY, partial(_roll_up, upkeep))
    upkeep.add("retained", REMOVE_EVERY, disabled.clear)
    upkeep.add("removal", REMOVE_EVERY, partial(_remove, upkeep))
    upkeep.add("partitions", EXTEND_EVERY, partial(_extend, upkeep))
    if connection.vendor == "sqlite":
        upkeep.add("checkpoints", wal_checkpoints.EVERY, Checkpoints(lambda: running.outcomes.total()).run)
    return upkeep


def _extend(upkeep: Upkeep) -> None:
    with contextlib.suppress(Stopped):
        partitions.extend_all(Pace(stop=upkeep.stopped))


def _roll_up(upkeep: Upkeep) -> None:
    with contextlib.suppress(Stopped):
        while rollups.roll_up(pace=Pace(stop=upkeep.stopped)):
            pass  # a fast fleet brings more in a minute than one call takes


def _remove(upkeep: Upkeep) -> None:
    with contextlib.suppress(Stopped):
        removal.work_off(Pace(stop=upkeep.stopped))


def _endpoint(text: str) -> tuple[str, int]:
    """[HOST:]PORT, an IPv6 address in brackets. Raises ArgumentTypeError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ArgumentTypeError(f"{text!r} is no [HOST:]PORT with a port from 1 to 65535")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _expose(host: str, port: int, listener: Listener, worker: Worker) -> None:
    try:
        exposition.serve(host, port, listener, worker)
    except OSError as error:
        raise CommandError(f"--metrics: nothing can be served at {host}, port {port} ({error})") from error


def _where(address: BrokerAddress) -> str:
    return f"{address.host}:{address.port}"


def _described(running: Worker) -> str:
    unwanted = f", {running.unwanted} of earlier settings left out" if running.unwanted else ""
    return f"{_counted(running.outcomes)}{unwanted}"


def _counted(outcomes: Counter[Outcome]) -> str:
    return ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome)
