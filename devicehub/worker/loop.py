"""The loop of an ingest worker: take what is queued, store it, acknowledge it."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self

import structlog
from django.db import connections

from devicehub.backoff import Backoff
from devicehub.ingest.items import Item
from devicehub.ingest.pipeline import CANNOT_STORE, pipeline
from devicehub.messages.message import Message, Outcome
from devicehub.mqtt import Delivery, Listener
from devicehub.worker import metrics
from devicehub.worker.announcer import Announcer

log = structlog.get_logger(__name__)

BATCH = 2000  # messages in one transaction at most
SLOW = 10.0  # seconds for a batch, beyond which what came meanwhile was not heard in time
RETRY = Backoff((0.5, 1, 2, 5))  # seconds between attempts while the database cannot store
GRACE = 9.0  # seconds from stop() until the process is ended without waiting for its database
POLL = 0.2


class Worker:
    """Stores what a listener receives until it is told to stop; counts what became of the messages.

    Hooks and receivers are told by *announcer*, in its own thread. What comes on a topic for which *is_wanted* returns
    False is acknowledged and counted, and nothing more.
    """

    def __init__(
        self,
        listener: Listener,
        on_batch: Callable[[Counter[Outcome]], None] = lambda _: None,
        is_wanted: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._listener = listener
        self._on_batch = on_batch
        self._is_wanted = is_wanted
        self.stopping = False  # no Event: a signal handler sets it, and must wait for no lock
        self._ended = False
        self._failures = 0
        self._most = BATCH
        self.announcer = Announcer()
        self._began: float | None = None  # when the batch at hand was taken, by time.monotonic()
        self._slow_until = float("-inf")
        self.outcomes: Counter[Outcome] = Counter()
        self.unwanted = 0  # messages on topics of earlier settings, which were acknowledged and nothing more

    def __enter__(self) -> Self:
        """From stop() to the end of this block may pass GRACE seconds, then the process is ended."""
        threading.Thread(target=self._see_to_the_end, name="last resort", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.announcer.stop()
        self._ended = True

    def stop(self) -> None:
        """Finish the batch at hand and return from run()."""
        self.stopping = self.announcer.stopping = True

    @property
    def heard_since(self) -> float | None:
        """Since when, by time.monotonic(), what was published is stored soon; None while it is not."""
        since, began = self._listener.listening_since, self._began
        if since is None or (began is not None and time.monotonic() - began > SLOW):
            return None
        return max(since, self._slow_until)

    @property
    def heard_until(self) -> float:
        """Until when, by time.monotonic(), what was published is stored: nothing later is known of any device."""
        return min(self._listener.heard_at, time.monotonic() - self._listener.oldest_waiting)

    def run(self, *, quiet: float = float("inf")) -> None:
        """Returns after stop(), when the broker refused us for good (see Listener.failure), or once it is *quiet*.

        That is when the session is settled and nothing came for so many seconds.
        """
        quiet_since = time.monotonic()
        while not self.stopping and not self._listener.failure:
            deliveries = self._listener.take(self._most, timeout=POLL)
            if quiet < float("inf"):
                if deliveries or not self._listener.is_settled:
                    quiet_since = time.monotonic()
                elif time.monotonic() - quiet_since > quiet:
                    return
            if deliveries:
                self._began = began = time.monotonic()
                self._store(deliveries)
                if time.monotonic() - began > SLOW:
                    self._slow_until = time.monotonic()
                self._began = None

    def _store(self, deliveries: Sequence[Delivery]) -> None:
        began, is_stored = time.time(), False
        wanted = [delivery for delivery in deliveries if self._is_wanted(delivery.topic)]

        def acknowledge() -> None:
            nonlocal is_stored
            is_stored = True
            self._listener.acknowledge(deliveries)

        outcomes: list[Outcome] = []
        try:
            if wanted:
                outcomes = pipeline(
                    [_message(delivery) for delivery in wanted],
                    acknowledge=acknowledge,
                    notify=lambda batch: self._notify(batch, began),
                )
            else:
                acknowledge()
        except CANNOT_STORE as error:
            if is_stored:
                raise  # to have it all sent again would store it twice
            self._most = max(1, len(deliveries) // 2)  # perhaps it is one row, or too much at once
            self._wait(error)
            return
        self._failures, self._most = 0, min(BATCH, self._most * 2)
        self.outcomes.update(outcomes)
        if len(wanted) < len(deliveries):
            self._leave_out([delivery for delivery in deliveries if not self._is_wanted(delivery.topic)])
        self._on_batch(self.outcomes)

    def _notify(self, batch: Sequence[Item], began: float) -> None:
        metrics.stored(batch, began, time.time())
        self.announcer.notify(batch)

    def _leave_out(self, deliveries: Sequence[Delivery]) -> None:
        """Count what a subscription of earlier settings brought; log the first topic of it."""
        if not self.unwanted:
            hint = "the session holds a subscription of earlier settings"
            log.warning("ingest.unwanted", topic=deliveries[0].topic, hint=hint)
        self.unwanted += len(deliveries)
        metrics.unwanted(len(deliveries))

    def _wait(self, error: Exception) -> None:
        """Nothing is acknowledged: pause, drop the broken connection, and have it all sent again."""
        self._failures += 1
        pause = RETRY.after(self._failures)
        metrics.not_stored()
        log.error("ingest.not_stored", error=f"{type(error).__name__}: {error}", retry_in=pause)
        connections.close_all()
        end = time.monotonic() + pause
        while not self.stopping and time.monotonic() < end:
            time.sleep(POLL)
        self._listener.redeliver()

    def _see_to_the_end(self) -> None:
        """End the process when it was told to stop and its database or its broker does not answer.

        Nothing is lost by that: what is not committed is not acknowledged, and comes again.
        """
        while not self.stopping and not self._ended:
            time.sleep(POLL)
        end = time.monotonic() + GRACE
        while not self._ended:
            if time.monotonic() > end:
                log.error(
                    "ingest.ended", hint="database or broker did not answer; what was not stored comes again"
                )
                os._exit(1)
            time.sleep(POLL)


def _message(delivery: Delivery) -> Message:
    return Message(
        topic=delivery.topic,
        payload=delivery.payload,
        received_at=datetime.fromtimestamp(delivery.received_at, UTC),
        retain=delivery.retain,
        content_type=delivery.content_type,
        correlation_id=delivery.correlation_data.decode("utf-8", "replace"),
        user_properties=delivery.user_properties,
    )
