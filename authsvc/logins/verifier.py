"""Password verification for a server: quick hashes at once, slow ones in a few threads and once per password.

A slow hash (argon2id, bcrypt, PBKDF2) costs a tenth of a second of a core. What was right once is remembered
by the stored hash and a keyed digest of the password, so a reconnect storm costs one verification a device, and
the processes of one server tell each other (`authsvc.logins.recognised`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from authsvc.caches import BoundedCache
from authsvc.conf import cache_size
from authsvc.core import passwords
from authsvc.core.access import Principal, Undecided
from authsvc.logins import recognised

Entry = tuple[str, bytes]  # the stored hash, a keyed digest of the password

THREADS = 2  # slow verifications at once in one process
MAX_WAITING = 64  # verifications that run or wait in this process
MAX_OF_ONE = 2  # of them against one stored hash: guesses at one name hold up nobody else
MAX_A_MINUTE = 20  # passwords never seen before, against one stored hash

_key = secrets.token_bytes(32)  # of this process: what is remembered means nothing outside it
_right: BoundedCache[Entry, None] = BoundedCache(cache_size)
# Wrong passwords against slow hashes: a mistake that is repeated costs nothing.
_wrong: BoundedCache[Entry, None] = BoundedCache(cache_size)
# By stored hash: since when verifications are counted, and how many there were.
_budgets: BoundedCache[str, tuple[float, int]] = BoundedCache(cache_size)
_running: dict[Entry, Future[bool]] = {}
_lock = threading.RLock()  # again in the thread that has it when stop() drops what waits
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")


overloaded = 0  # how often there was no room
verified = 0  # how often a slow hash was computed


def waiting() -> int:
    """How many slow verifications run or wait."""
    return len(_running)


class Overloaded(Undecided):
    """Too many slow verifications wait, or this minute's against this hash are used up."""


class Attempt:
    """One password that somebody presents. *waited*: a slow hash was computed for it, which took its time."""

    __slots__ = ("_digest", "_password", "_refused", "waited")

    def __init__(self, password: str) -> None:
        self._password = password
        self._refused = passwords.too_long(password)
        text = b"" if self._refused else password.encode("utf-8", "surrogatepass")
        self._digest = hashlib.blake2b(text, key=_key).digest()
        self.waited = False

    def is_verified_for(self, principal: Principal) -> bool:
        """Whether it was right before for a hash that *principal* still has. No hashing, no I/O."""
        if self._refused:
            return False
        for secret in principal.secrets:  # noqa: SIM110 - any() over a generator takes twice as long
            if (secret.hash, self._digest) in _right:
                return True
        return False

    async def verify(self, password: str, stored: str) -> bool:
        """Whether *password*, which is this one, is that of *stored*. Raises passwords.UnusableHash, Overloaded."""
        if password is not self._password:
            return await Attempt(password).verify(password, stored)
        if self._refused:
            return False
        entry = (stored, self._digest)
        if entry in _right:
            _right.touch(entry)
            return True
        if passwords.is_fast(stored):
            right = passwords.verify(password, stored)
            if right:
                _right.put(entry, None)
        else:
            passwords.scheme_of(stored)  # refuses what is unusable or too costly before any work
            if not password or entry in _wrong:
                return False
            if recognised.holds(stored, password):  # it was right in another process of this server
                _right.put(entry, None)
                return True
            self.waited = True
            # Who asked may be gone before it ends: what it found is remembered all the same.
            right = await asyncio.shield(asyncio.wrap_future(_submit(entry, password)))
        return right


def _submit(entry: Entry, password: str) -> Future[bool]:
    """The verification of *entry*: the one that runs already, or a new one if there is room."""
    global overloaded, verified
    stored = entry[0]
    with _lock:
        if (running := _running.get(entry)) is not None:
            return running
        of_one = sum(other == stored for other, _ in _running)
        if len(_running) >= MAX_WAITING or of_one >= MAX_OF_ONE or not _within_budget(stored):
            overloaded += 1
            raise Overloaded
        verified += 1
        future = _running[entry] = _threads.submit(passwords.verify, password, stored)
    future.add_done_callback(lambda done: _finish(entry, password, done))
    return future


def _finish(entry: Entry, password: str, done: Future[bool]) -> None:
    """In the thread that verified: note what came out, then make room."""
    with _lock:
        if not done.cancelled() and done.exception() is None:
            (_right if done.result() else _wrong).put(entry, None)
            if done.result():
                recognised.add(entry[0], password)
        _running.pop(entry, None)


def stop() -> None:
    """Drop what waits, so that a process ends as soon as its threads finish what they are at."""
    global _threads
    with _lock:
        threads, _threads = _threads, ThreadPoolExecutor(THREADS, thread_name_prefix="verify")
        threads.shutdown(wait=False, cancel_futures=True)


def _within_budget(stored: str) -> bool:
    """Count one verification against *stored*; False when this minute's are used up."""
    now = time.monotonic()
    since, used = _budgets.get(stored, (now, 0))
    if now - since >= 60:
        since, used = now, 0
    if used >= MAX_A_MINUTE:
        return False
    _budgets.put(stored, (since, used + 1))
    return True


def _after_fork() -> None:
    """The threads, and what they were at, stayed with the parent."""
    global _threads, _lock
    _threads, _lock = ThreadPoolExecutor(THREADS, thread_name_prefix="verify"), threading.RLock()
    _running.clear()


os.register_at_fork(after_in_child=_after_fork)
