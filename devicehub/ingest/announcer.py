"""Calls of hooks and receivers in a thread of their own: a slow one slows ingest down, a stuck one does not stop it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import structlog
from django.db import close_old_connections, connections

from devicehub.ingest.announce import Call, of_batch, of_transitions
from devicehub.ingest.items import DeviceRow, Item, Judged
from devicehub.ingest.presence import Transition

log = structlog.get_logger(__name__)

BATCHES = 4  # Batches that wait for their notifications; with more of them storing waits, too.
# Seconds that a hook may take while batches wait for it; then storing goes on without notifications.
PATIENCE = 5.0
FAREWELL = 1.5  # Seconds for waiting notifications when the worker stops.


class Waiting(NamedTuple):
    """Notifications that wait: *calls*, one after the other, for so many *messages* or devices."""

    calls: Iterator[Call]
    messages: int


class Announcer:
    """A thread that calls the listeners of batches in order, one at a time, after these are stored and acknowledged.

    The number of waiting batches is bounded: if hooks are slower than messages arrive, notify() waits. While one hook
    has not returned for PATIENCE seconds, further batches are stored without notifications; *unannounced* counts
    their messages.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[Waiting | None] = queue.Queue(BATCHES)
        self._calling_since: float | None = None  # By time.monotonic(); None between two calls.
        self.stopping = False  # Not an Event: a signal handler sets it, and must not wait for a lock.
        self.unannounced = 0
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def notify(self, batch: Sequence[Item]) -> None:
        """Queue the notifications for *batch*, if it has listeners."""
        if any(_concerns_somebody(item) for item in batch):
            self._put(Waiting(of_batch(batch), len(batch)))

    def notify_transitions(self, transitions: Sequence[Transition]) -> None:
        """Queue the notifications for *transitions*, which were not caused by a message."""
        self._put(Waiting(of_transitions(transitions), len(transitions)))

    def stop(self, seconds: float = FAREWELL) -> None:
        """Make the waiting notifications, for *seconds* at most, and end the thread."""
        end = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=seconds)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._give_up(self._left())

    def _put(self, waiting: Waiting) -> None:
        while True:
            try:
                self._waiting.put(waiting, timeout=0 if self._is_stuck() else 0.5)
                return
            except queue.Full:
                if self._is_stuck() or self.stopping:
                    self._give_up([waiting])
                    return

    def _is_stuck(self) -> bool:
        since = self._calling_since
        return since is not None and time.monotonic() - since > PATIENCE

    def _left(self) -> list[Waiting]:
        left: list[Waiting] = []
        while True:
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                return left
            if waiting is not None:
                left.append(waiting)

    def _give_up(self, given_up: Sequence[Waiting]) -> None:
        count = sum(waiting.messages for waiting in given_up)
        self.unannounced += count
        log.error(
            "ingest.not_told", messages=count, hint="they are stored; a hook or receiver does not return"
        )

    def _run(self) -> None:
        try:
            while (waiting := self._waiting.get()) is not None:
                try:
                    close_old_connections()
                    self._make(waiting.calls)
                except Exception:
                    log.exception("ingest.not_told", messages=waiting.messages)
                finally:
                    self._calling_since = None
        finally:
            connections.close_all()

    def _make(self, calls: Iterator[Call]) -> None:
        for call in calls:
            self._calling_since = time.monotonic()
            try:
                call()
            except BaseException:  # A hook that calls sys.exit() must not end this thread.
                log.exception("ingest.hook_failed")


def _concerns_somebody(item: Item) -> bool:
    """Return whether *item* has listeners: without them its device is not even loaded."""
    return isinstance(item, Judged) and not isinstance(item.device, DeviceRow)
