"""Hooks and receivers in a thread of their own: a slow one slows ingest down, a stuck one does not stop it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from django.db import close_old_connections, connections

from devicehub.ingest.announce import announce
from devicehub.ingest.store import Item, Judged, Known
from devicehub.topics import MessageType

log = structlog.get_logger(__name__)

BATCHES = 4  # that wait to be told, beyond which storing waits too
PATIENCE = 30.0  # seconds that one hook may take, after which storing goes on without telling
FAREWELL = 3.0  # seconds for what still waits when the worker stops


class Announcer:
    """Tells batches in their order, one at a time, after they were stored and acknowledged.

    What waits is bounded: where hooks are slower than messages come, tell() waits. While one hook has not returned
    for PATIENCE seconds, what cannot wait any more is stored and not told; *untold* counts those messages.
    """

    def __init__(self, tell: Callable[[Sequence[Item]], None] = announce) -> None:
        self._tell = tell
        self._waiting: queue.Queue[Sequence[Item] | None] = queue.Queue(BATCHES)
        self._progress = time.monotonic()
        self._idle = True
        self.untold = 0
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def tell(self, batch: Sequence[Item]) -> None:
        """Have *batch* told, if anybody listens to something in it."""
        if not any(_concerns_somebody(item) for item in batch):
            return
        while True:
            try:
                self._waiting.put(batch, timeout=0.5)
                return
            except queue.Full:
                if self._stuck():
                    self._give_up([batch])
                    return

    def stop(self, seconds: float = FAREWELL) -> None:
        """Tell what waits, for *seconds* at most, and end the thread."""
        end = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=seconds)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._give_up(self._left())

    def _stuck(self) -> bool:
        return not self._idle and time.monotonic() - self._progress > PATIENCE

    def _left(self) -> list[Sequence[Item]]:
        left: list[Sequence[Item]] = []
        while True:
            try:
                batch = self._waiting.get_nowait()
            except queue.Empty:
                return left
            if batch is not None:
                left.append(batch)

    def _give_up(self, batches: Sequence[Sequence[Item]]) -> None:
        messages = sum(len(batch) for batch in batches)
        self.untold += messages
        log.error(
            "ingest.not_told", messages=messages, hint="they are stored; a hook or receiver does not return"
        )

    def _run(self) -> None:
        try:
            while (batch := self._waiting.get()) is not None:
                self._note()
                self._idle = False
                close_old_connections()
                try:
                    self._tell(batch)
                except Exception:
                    log.exception("ingest.not_told", messages=len(batch))
                self._idle = True
        finally:
            connections.close_all()

    def _note(self) -> None:
        """Somebody was told, and returned."""
        self._progress = time.monotonic()


def _concerns_somebody(item: Item) -> bool:
    """Where nobody listens devices are not even loaded; a reply is its command's."""
    return isinstance(item, Judged) and (
        not isinstance(item.device, Known) or item.message_type is MessageType.REPLY
    )
