"""Notes of answers: who asked from where and, after a login, as whom. Counted with each answer, without I/O.

A note belongs to all answers to one caller at one address, or to all logins of one client there. An answer from the
cache adds one to a number, stores a time that was read anyway, and queues the note if it is not queued yet. Once a
second the background thread takes the queued notes; `authsvc.operation.broker_uses` and
`authsvc.operation.last_logins` write them.
"""

from __future__ import annotations

import time
from collections import deque

from django.db import transaction

from authsvc import background
from authsvc.caches import BoundedCache
from authsvc.conf import cache_size
from authsvc.core.access import Verdict
from authsvc.operation import broker_uses, last_logins
from authsvc.operation.last_logins import Login
from authsvc.policy import Caller

MAX_QUEUED = 50_000  # Notes between two rounds.
WRITE_SECONDS = 60.0  # Repeated logins and questions are written this often; first ones in the next round.
AT_ONCE = 100  # After so many notes the thread lets the others run.


class Note:
    """The answers to *caller* at *address*, or its logins of one client.

    The answers change *count* and *at* (as time.perf_counter()), and the background thread reads them.
    """

    __slots__ = ("_taken", "address", "at", "caller", "count", "is_queued", "login")

    def __init__(self, caller: Caller, address: str, login: Login | None) -> None:
        self.caller = caller
        self.address = address
        self.login = login
        self.count = self._taken = 0
        self.at = 0.0
        self.is_queued = False

    def take(self) -> int:
        """Return the number of answers since the last call."""
        # In this order: an answer that finds the note still queued is in the number.
        self.is_queued = False
        count = self.count
        taken, self._taken = count - self._taken, count
        return taken


_notes: BoundedCache[tuple[str, ...], Note] = BoundedCache(cache_size)
_queued: deque[Note] = deque()
_written_at = time.monotonic()
dropped = 0  # Notes that were not queued because MAX_QUEUED others were.


def of(caller: Caller, address: str, verdict: Verdict, *, is_login: bool) -> Note:
    """Return the note for the answer of *verdict* to *caller*, which asked from *address*."""
    login = last_logins.login_of(verdict) if is_login and verdict.allowed else None
    key: tuple[str, ...] = (caller.token_digest, address)
    if login is not None:
        key += (login.key, login.client_id, login.hash, "current" if login.is_current else "other")
    note = _notes.get(key)
    if note is None or note.caller is not caller:
        note = Note(caller, address, login)
        _notes.put(key, note)
    return note


def queue(note: Note) -> None:
    """Queue *note* for the next round. Beyond the bound it is dropped, until its next answer."""
    global dropped
    if len(_queued) >= MAX_QUEUED:
        dropped += 1
        return
    note.is_queued = True
    _queued.append(note)
    background.wake()


def flush() -> int:
    """Write the notes that are due and return the number of rows. Raise django.db.Error; they then stay pending.

    After a commit the processes on SQLite read their caches again, so repeated notes wait for a common one.
    """
    _collect()
    broker_uses.retire_tokens()
    is_time = time.monotonic() - _written_at >= WRITE_SECONDS or last_logins.is_full()
    if is_time or last_logins.has_first() or broker_uses.has_first():
        return _write(everything=is_time)
    return 0


def flush_all() -> int:
    """Write all notes and return the number of rows. Raise django.db.Error."""
    _collect()
    return _write(everything=True)


def clear() -> None:
    """Drop all notes, between tests."""
    _notes.clear()
    _queued.clear()
    last_logins.clear()
    broker_uses.clear()


def _collect() -> None:
    """Move the queued notes to the pending rows."""
    start = time.time() - time.perf_counter()
    for number in range(len(_queued)):
        if number % AT_ONCE == AT_ONCE - 1:
            time.sleep(0)  # Otherwise an answer could wait for the interpreter, for 5 ms.
        note = _queued.popleft()
        count, at = note.take(), start + note.at
        broker_uses.add(note.caller, note.address, count, at)
        if note.login is not None:
            last_logins.add(note.login, note.caller.name, note.address, at)


def _write(*, everything: bool) -> int:
    global _written_at
    logins, uses = last_logins.due(everything=everything), broker_uses.due(everything=everything)
    if logins or uses:
        with transaction.atomic():
            last_logins.write(logins)
            broker_uses.write(uses)
        last_logins.finish(logins)
        broker_uses.finish(uses)
    if everything and not last_logins.is_full():
        _written_at = time.monotonic()
    return len(logins) + len(uses)


background.every_second(flush)
background.at_the_end(flush_all)
