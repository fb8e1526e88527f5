"""The loop of an ingest worker: take queued messages, store them, acknowledge them."""

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
from devicehub.ingest.announcer import Announcer
from devicehub.ingest.items import Item
from devicehub.ingest.pipeline import CANNOT_STORE, pipeline
from devicehub.messages.message import Message, Outcome
from devicehub.mqtt import Delivery, Listener
from devicehub.worker import metrics

log = structlog.get_logger(__name__)

BATCH = 2000  # The most messages in one transaction.
SLOW = 10.0  # If a batch takes more seconds, messages that arrive meanwhile are not heard in time.
RETRY = Backoff((0.5, 1, 2, 5))  # Seconds between attempts while the database cannot store.
GRACE = 9.0  # Seconds from stop() until the process ends without waiting for its database.
POLL = 0.2


class Worker:
    """A loop that stores the messages of a listener until stop(), and counts their outcomes.

    *announcer* notifies hooks and receivers, in its own thread. Messages on a topic for which *is_wanted* returns
    False are only acknowledged and counted.
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
        self.stopping = False  # Not an Event: a signal handler sets it, and must not wait for a lock.
        self._ended = False
        self._failures = 0
        self._most = BATCH
        self.announcer = Announcer()
        self._began: float | None = None  # The time.monotonic() at which the current batch was taken.
        self._slow_until = float("-inf")
        self.outcomes: Counter[Outcome] = Counter()
        self.unwanted = 0  # Messages on topics of earlier settings, which were only acknowledged.

    def __enter__(self) -> Self:
        """Start the thread that ends the process if this block does not end within GRACE seconds after stop()."""
        threading.Thread(target=self._see_to_the_end, name="last resort", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.announcer.stop()
        self._ended = True

    def stop(self) -> None:
        """Have run() finish the current batch and return."""
        self.stopping = self.announcer.stopping = True

    @property
    def heard_since(self) -> float | None:
        """The time.monotonic() since which published messages are stored soon; None while they are not."""
        since, began = self._listener.listening_since, self._began
        if since is None or (began is not None and time.monotonic() - began > SLOW):
            return None
        return max(since, self._slow_until)

    @property
    def heard_until(self) -> float:
        """The time.monotonic() until which all published messages are stored; later ones may be missing."""
        return min(self._listener.heard_at, time.monotonic() - self._listener.oldest_waiting)

    def run(self, *, quiet: float = float("inf")) -> None:
        """Store messages until stop(), a final refusal of the broker (see Listener.failure), or a quiet time.

        The quiet time is *quiet* seconds without a message in a settled session.
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
                raise  # A redelivery would store the messages twice.
            self._most = max(1, len(deliveries) // 2)  # The fault may be one row, or the size of the batch.
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
        """Count messages of a subscription that earlier settings made; log the topic of the first one."""
        if not self.unwanted:
            hint = "the session holds a subscription of earlier settings"
            log.warning("ingest.unwanted", topic=deliveries[0].topic, hint=hint)
        self.unwanted += len(deliveries)
        metrics.unwanted(len(deliveries))

    def _wait(self, error: Exception) -> None:
        """Pause, drop the broken database connection, and have all messages that are not acknowledged sent again."""
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
        """End the process if it does not stop within GRACE seconds, because its database or broker does not answer.

        Nothing is lost: messages that are not committed are not acknowledged, and are sent again.
        """
        while not self.stopping and not self._ended:
            time.sleep(POLL)
        end = time.monotonic() + GRACE
        while not self._ended:
            if time.monotonic() > end:
                log.error(
                    "ingest.ended", hint="database or broker did not answer; unstored messages are sent again"
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
