"""Messages that arrive as HTTP requests, and wait for their outcome. Those that wait at once share one transaction.

A thread with a connection of its own takes all that wait and stores them by one call of the pipeline, while the next
ones arrive. One message alone is stored at once. A request in a transaction stores its message itself, within it.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import structlog
from django.db import connection, connections

from devicehub.errors import DevicehubError
from devicehub.ingest import durability
from devicehub.ingest.announcer import Announcer
from devicehub.ingest.items import Item, Judged
from devicehub.ingest.pipeline import CANNOT_STORE, pipeline
from devicehub.messages.message import FailureReason, Message, Outcome

log = structlog.get_logger(__name__)

MOST = 100  # Messages that wait in a process; further ones are refused.
BATCH = 50  # The most messages in one transaction; each has up to a mebibyte.
PATIENCE = 15.0  # Seconds after which a message is not stored any more: its client has given up, or will send it again.
LONGEST = 30.0  # Seconds for which a request waits, also for a thread that hangs.
IDLE = 1.0  # Seconds without a message after which the thread closes its connection.
FAREWELL = 5.0  # Seconds for waiting messages at the end of the process.


class UnknownOutcome(DevicehubError):
    """A message is being stored for so long that its request is answered before: it may be stored, or not."""


class Ended(NamedTuple):
    """The outcome of a message, with the reason and its detail if it failed, and the notes about omitted values.

    *is_kept* is true if the quarantine keeps the message, so that it can be replayed.
    """

    outcome: Outcome
    reason: FailureReason | None = None
    detail: str = ""
    notes: Sequence[str] = ()
    is_kept: bool = False


@dataclass
class Waiting:
    """A message whose request waits for *end*, which becomes None if the message cannot be stored.

    A request that gives up cancels *end*, unless the thread has taken the message.
    """

    message: Message
    end: Future[Ended | None] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    def is_too_old(self) -> bool:
        """Return whether its time is over."""
        return time.monotonic() - self.since > PATIENCE


class Storing:
    """A thread that stores the messages that wait. It begins with the first one."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Waiting | None] = queue.Queue(MOST)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def store(self, message: Message) -> Ended | None:
        """Store *message* and return how it ended; None if it is not stored, and the request may be repeated.

        Raise UnknownOutcome.
        """
        waiting = Waiting(message)
        with self._lock:
            if self._is_stopped:
                return None
            if self._thread is None or not self._thread.is_alive():  # A fork has no threads.
                self._thread = threading.Thread(target=self._run, name="storing", daemon=True)
                self._thread.start()
            try:
                self._queue.put_nowait(waiting)
            except queue.Full:
                log.warning("ingest.not_stored", error="too many messages wait", waiting=MOST)
                return None
        try:
            return waiting.end.result(LONGEST)
        except TimeoutError:
            log.warning("ingest.not_stored", error="the thread that stores hangs", seconds=LONGEST)
            if waiting.end.cancel():
                return None
            raise UnknownOutcome("The message may be stored, or may be stored soon.") from None

    def stop(self, seconds: float = FAREWELL) -> None:
        """Store what waits, for *seconds* at most, end the thread, and refuse further messages."""
        with self._lock:
            self._is_stopped, thread = True, self._thread
        if thread is not None and thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=seconds)
            thread.join(seconds)

    def _run(self) -> None:
        is_open = False
        try:
            while True:
                try:
                    first = self._queue.get(timeout=IDLE if is_open else None)
                except queue.Empty:
                    connections.close_all()
                    is_open = False
                    continue
                batch = [] if first is None else [first]
                while first is not None and len(batch) < BATCH:
                    try:
                        first = self._queue.get_nowait()
                    except queue.Empty:
                        break
                    if first is not None:
                        batch.append(first)
                if batch:
                    is_open = True
                    self._store(batch)
                if first is None:
                    return
        finally:
            connections.close_all()

    def _store(self, batch: Sequence[Waiting]) -> None:
        """Store *batch*, without those whose requests gave up, and answer each of it."""
        batch = [one for one in batch if one.end.set_running_or_notify_cancel()]
        try:
            self._attempt(batch)
        except BaseException as error:  # A mistake of this program must not keep requests waiting.
            for one in batch:
                if not one.end.done():
                    one.end.set_exception(error)

    def _attempt(self, batch: Sequence[Waiting]) -> None:
        """Store *batch*, or each message alone if the database cannot: the fault may be that of one, or the size."""
        for late in batch:
            if late.is_too_old():
                late.end.set_result(None)
        batch = [one for one in batch if not one.end.done()]
        ends = self._stored([one.message for one in batch]) if batch else []
        if ends is None:
            connections.close_all()
        if ends is None and len(batch) > 1:
            for one in batch:
                self._attempt([one])
            return
        for one, end in zip(batch, [None] if ends is None else ends, strict=True):
            one.end.set_result(end)

    def _stored(self, messages: Sequence[Message]) -> list[Ended] | None:
        try:
            if connection.connection is None:
                connection.ensure_connection()
                durability.demand(connection)  # A device may delete what was answered.
        except CANNOT_STORE as error:
            log.exception("ingest.not_stored", error=type(error).__name__)
            return None
        return _store(messages, lambda: durability.demand_now(connection))


def store(message: Message) -> Ended | None:
    """Store *message* and return how it ended; None if the database cannot store it. Raise UnknownOutcome."""
    if not connection.in_atomic_block:
        return _storing.store(message)
    ends = _store([message])
    return None if ends is None else ends[0]


def _store(messages: Sequence[Message], begin: Callable[[], None] = lambda: None) -> list[Ended] | None:
    """Store *messages* in one transaction; return how each ended, or None if the database cannot store."""
    items: list[Item] = []

    def notify(stored: Sequence[Item]) -> None:
        items.extend(stored)
        announcer().notify(stored)

    try:
        pipeline(messages, notify=notify, begin=begin)
    except CANNOT_STORE as error:
        log.exception("ingest.not_stored", error=type(error).__name__)
        if not items:
            return None
    return [ended(item) for item in items]


def ended(item: Item) -> Ended:
    """Return how the message of *item* ended."""
    notes = item.notes.shown() if isinstance(item, Judged) else ()
    return Ended(item.outcome, item.reason, item.detail, notes, item.kept_as is not None)


@cache
def announcer() -> Announcer:
    """Return the announcer of this process: a hook that never returns must not keep requests waiting."""
    return Announcer()


def stop() -> None:
    """Store what waits, and then call the hooks of what was stored, for a few seconds at most."""
    _storing.stop()
    if announcer.cache_info().currsize:
        announcer().stop()


_storing = Storing()
atexit.register(stop)
