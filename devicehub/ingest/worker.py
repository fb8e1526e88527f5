"""The loop of an ingest worker: take what is queued, store it, acknowledge it."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from devicehub.ingest.message import Message, Outcome
from devicehub.ingest.pipeline import pipeline
from devicehub.mqtt import Delivery, Listener

log = structlog.get_logger(__name__)

BATCH = 2000  # messages in one transaction at most
PAUSE = (0.5, 1, 2, 5, 10)  # seconds between attempts while the database cannot store


# How SQLite stores much at once: pages of indexes stay in memory (96 MiB), and the write-ahead log is copied into
# the database every 200 MB instead of every 4: a page that changes with each batch is copied once for all of them.
# What is committed is flushed to disk all the same.
SQLITE_PRAGMAS = ("cache_size = -98304", "wal_autocheckpoint = 50000")


def settle() -> None:
    """Prepare this process for storing and nothing else, before the first message."""
    connection_created.connect(_tune, dispatch_uid="ingest")
    connections.close_all()  # the one that the checks left is made anew
    # What was imported stays, and what a batch makes is gone by its end: nothing for the collector to look at.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _tune(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            for pragma in SQLITE_PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")


class Worker:
    """Stores what a listener receives until it is told to stop; counts what became of the messages."""

    def __init__(
        self, listener: Listener, on_batch: Callable[[Counter[Outcome]], None] = lambda _: None
    ) -> None:
        self._listener = listener
        self._on_batch = on_batch
        self._stop = threading.Event()
        self._failures = 0
        self.outcomes: Counter[Outcome] = Counter()

    def stop(self) -> None:
        """Finish the batch at hand and return from run()."""
        self._stop.set()

    def run(self) -> None:
        """Returns after stop(), or when the broker refused us for good (see Listener.failure)."""
        while not self._stop.is_set() and not self._listener.failure:
            deliveries = self._listener.take(BATCH, timeout=0.2)
            if deliveries:
                self._store(deliveries)

    def _store(self, deliveries: Sequence[Delivery]) -> None:
        try:
            outcomes = pipeline(
                [_message(delivery) for delivery in deliveries],
                acknowledge=lambda: self._listener.acknowledge(deliveries),
            )
        except (DatabaseError, InterfaceError) as error:
            self._wait(error)
            return
        self._failures = 0
        self.outcomes.update(outcomes)
        self._on_batch(self.outcomes)

    def _wait(self, error: Exception) -> None:
        """Nothing is acknowledged: pause, drop the broken connection, and have it all sent again."""
        pause = PAUSE[min(self._failures, len(PAUSE) - 1)]
        self._failures += 1
        log.error("ingest.not_stored", error=f"{type(error).__name__}: {error}", retry_in=pause)
        connections.close_all()
        self._stop.wait(pause)
        self._listener.redeliver()


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
