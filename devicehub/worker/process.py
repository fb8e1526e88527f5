"""An ingest worker as a process: its session at the broker, the loop that stores, and the periodic work beside it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from django.db import InterfaceError, OperationalError, connections

from authsvc.core import topics as filters
from authsvc.errors import lacks_tables
from devicehub import commands
from devicehub.conf import settings
from devicehub.errors import DevicehubError
from devicehub.ingest.durability import settle
from devicehub.kinds import topics
from devicehub.messages.message import Outcome
from devicehub.mqtt import BrokerAddress, Connection, Listener, MqttError
from devicehub.worker import admission, exposition, sessions
from devicehub.worker.loop import BATCH, POLL, RETRY, Worker
from devicehub.worker.peers import Peers
from devicehub.worker.periodic import PeriodicWork
from devicehub.worker.tasks import Context

SETTLE_SECONDS = 30.0  # The broker has so long to answer requests about former subscriptions.
QUIET = 3.0  # After so many seconds without a message, nothing waits in the session of a retired worker.


class WorkerFailed(DevicehubError):
    """A worker could not be started, or ended before its work was done."""


@dataclass(frozen=True)
class Identity:
    """A worker at its broker: the broker's address, the client id, and the topic filters it subscribes to."""

    address: BrokerAddress
    client_id: str
    filters: Sequence[str]

    @classmethod
    def of(cls, number: int, *, retires: bool = False) -> Identity:
        """Return the identity of worker *number*, from 1, by the settings; one that *retires* has no filters.

        Raise InvalidAddress, or WorkerFailed for an invalid number and for topics in DEVICEHUB_MQTT_DROPS that cannot
        be those of counters.
        """
        group = settings.mqtt_group
        if number < 1:
            raise WorkerFailed("--worker must be 1 or more")
        if number > 1 and not (group or retires):
            raise WorkerFailed(
                "--worker above 1 needs DEVICEHUB_MQTT_GROUP: without it each worker would get all messages"
            )
        address = BrokerAddress.parse(settings.mqtt_url)
        for topic in settings.mqtt_drops:
            # A wildcard or a device's topic would keep readings from being stored.
            if not filters.is_topic(topic) or topics.parse(topic) is not None:
                raise WorkerFailed(
                    f"DEVICEHUB_MQTT_DROPS holds {topic!r}, which is not a topic of a broker's counter"
                )
        wanted = [] if retires else [topics.shared(text, group) for text in topics.subscriptions()]
        return cls(address, f"{address.username or 'devicehub'}-{number}", wanted)

    @property
    def where(self) -> str:
        """The host and port of the broker."""
        return f"{self.address.host}:{self.address.port}"

    def __str__(self) -> str:
        return f"{self.client_id} at {self.where}"


class Process:
    """One worker, from connect() to the end of run(), subscribe() or retire().

    *report* gets lines for the operator, also from the network thread; *on_batch* gets the outcomes so far, after each
    batch.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        report: Callable[[str], None] = lambda _: None,
        on_batch: Callable[[Counter[Outcome]], None] = lambda _: None,
    ) -> None:
        self.identity = identity
        self._report = report
        address, client_id, wanted = identity.address, identity.client_id, list(identity.filters)
        self.listener = Listener(
            address,
            client_id,
            wanted,
            version=settings.mqtt_version,
            drops=settings.mqtt_drops if wanted else [],
            report=report,
            judge=partial(admission.refusal, address, client_id, wanted),
        )
        self.worker = Worker(self.listener, on_batch, topics.is_subscribed)

    def stop(self) -> None:
        """Have the worker finish its current batch and end. A signal handler may call this: it waits for no lock."""
        self.worker.stop()
        self.listener.interrupt()

    def serve_metrics(self, host: str, port: int) -> None:
        """Answer Prometheus at http://host:port/metrics. Raise OSError, for example for a port that is taken."""
        exposition.serve(host, port, exposition.OfWorker(self.listener, self.worker))

    def connect(self, *, begin_anew: bool = False) -> None:
        """Prepare this process for storing, and start the listener, unless stop() was called. Raise WorkerFailed.

        *begin_anew* first ends the session at the broker, which deletes the messages that wait in it.
        """
        identity = self.identity
        settle()
        try:
            former = self._record_filters()
            if begin_anew and not self.worker.stopping:
                Connection(identity.address, identity.client_id, version=settings.mqtt_version).close()
                self._report(
                    f"ended the session of {identity}: the messages that waited in it are lost, "
                    "and the broker keeps none for this worker until it has subscribed again"
                )
            if not self.worker.stopping:
                self.listener.start(former)
        except MqttError as error:
            raise WorkerFailed(
                f"{error} (MQTT_URL, DEVICEHUB_MQTT_VERSION={settings.mqtt_version}, "
                f"DEVICEHUB_MQTT_GROUP={settings.mqtt_group!r})"
            ) from error

    def run(self) -> None:
        """Store messages and run the periodic tasks until stop(). Raise WorkerFailed if the broker refuses for good."""
        periodic = PeriodicWork.of(self._context())
        with self.worker:
            if not self.worker.stopping:
                periodic.start()
            self.worker.run()
            periodic.stop()
            commands.close()
            self.listener.stop()
        self._check()

    def subscribe(self) -> bool:
        """Subscribe the session as configured, and store nothing; return whether there was one. Raise WorkerFailed."""
        self._await_settled()
        was_resumed = self.listener.is_resumed
        self.listener.stop()
        self._check()
        if self.worker.stopping:
            raise WorkerFailed(f"Stopped before {self.identity} had subscribed")
        return was_resumed

    def retire(self) -> None:
        """Store the messages that wait for a worker without filters, and delete its rows. Raise WorkerFailed."""
        with self.worker:
            self.worker.run(quiet=QUIET)
            is_stopped = self.worker.stopping
            self.listener.stop()
        self._check()
        if is_stopped:
            raise WorkerFailed(f"Stopped before all messages for {self.identity} were stored; run this again")
        sessions.delete(self.identity.client_id)

    def _check(self) -> None:
        if self.listener.failure:
            raise WorkerFailed(self.listener.failure)

    def _context(self) -> Context:
        worker = self.worker
        return Context(
            heard_since=lambda: worker.heard_since,
            heard_until=lambda: worker.heard_until,
            stored=lambda: worker.outcomes.total(),
            peers=Peers(settings.mqtt_group, self.identity.client_id),
            notify=worker.announcer.notify_transitions,
            stopped=threading.Event(),
        )

    def _record_filters(self) -> list[str]:
        """Record the filters before the broker gets them; return those of earlier settings.

        Wait for a database that is away, until the worker is stopped.
        """
        wanted = [*self.identity.filters, *settings.mqtt_drops] if self.identity.filters else []
        attempts, said = 0, ""
        while not self.worker.stopping:
            try:
                return sessions.record(self.identity.client_id, wanted)
            except (OperationalError, InterfaceError) as error:
                if lacks_tables(error):
                    raise
                text = f"the database does not answer ({str(error).partition(chr(10))[0]}), trying again"
            if text != said:
                self._report(text)
            said = text
            connections.close_all()
            attempts += 1
            end = time.monotonic() + RETRY.after(attempts)
            while not self.worker.stopping and time.monotonic() < end:
                time.sleep(POLL)
        return []

    def _await_settled(self) -> None:
        """Wait until the session is settled. Drop messages that arrive meanwhile: the broker sends them again."""
        listener, end = self.listener, None
        while not (listener.is_settled or listener.failure or self.worker.stopping):
            listener.take(BATCH, timeout=POLL)
            if listener.listening_since is None:
                end = None
            elif end is None:
                end = time.monotonic() + SETTLE_SECONDS
            elif time.monotonic() > end:
                listener.stop()
                raise WorkerFailed(
                    "the broker does not answer requests to end former subscriptions; run this again"
                )
