"""Password verification for a server: quick hashes at once, slow ones in a few threads and once per password.

A slow hash (argon2id, bcrypt, PBKDF2) costs a tenth of a second of a core. A right password is cached by the stored
hash and a keyed digest of the password, so a reconnect storm costs one verification per device. The processes of one
server share this cache (`authsvc.logins.recognised`).
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

Entry = tuple[str, bytes]  # The stored hash and a keyed digest of the password.

THREADS = 2  # Slow verifications at once in one process.
MAX_WAITING = 64  # Verifications that run or wait in this process.
MAX_OF_ONE = 2  # At most this many at once against one stored hash, so that guesses do not delay other names.
MAX_A_MINUTE = 20  # New passwords per minute against one stored hash.

_key = secrets.token_bytes(32)  # A random key of this process.
_right: BoundedCache[Entry, None] = BoundedCache(cache_size)
# Wrong passwords against slow hashes, so that a repeated mistake is cheap.
_wrong: BoundedCache[Entry, None] = BoundedCache(cache_size)
# By stored hash: the start of the counted minute, and the number of verifications in it.
_budgets: BoundedCache[str, tuple[float, int]] = BoundedCache(cache_size)
_running: dict[Entry, Future[bool]] = {}
_lock = threading.RLock()  # Re-entrant, because stop() cancels futures whose callbacks take it.
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")


overloaded = 0  # Refused verifications.
verified = 0  # Computed slow hashes.


def waiting() -> int:
    """Return the number of slow verifications that run or wait."""
    return len(_running)


class Overloaded(Undecided):
    """Too many slow verifications wait, or this hash has used up its verifications of this minute."""


class Attempt:
    """One password in a login. *waited*: the login waited for a slow hash."""

    __slots__ = ("_digest", "_password", "_refused", "waited")

    def __init__(self, password: str) -> None:
        self._password = password
        self._refused = passwords.too_long(password)
        text = b"" if self._refused else password.encode("utf-8", "surrogatepass")
        self._digest = hashlib.blake2b(text, key=_key).digest()
        self.waited = False

    def is_verified_for(self, principal: Principal) -> bool:
        """Return whether the password was verified before with a present hash of *principal*. No hashing, no I/O."""
        if self._refused:
            return False
        for secret in principal.secrets:  # noqa: SIM110 - any() over a generator takes twice as long.
            if (secret.hash, self._digest) in _right:
                return True
        return False

    async def verify(self, password: str, stored: str) -> bool:
        """Return whether *password* (this one) matches *stored*. Raise passwords.UnusableHash, Overloaded."""
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
            passwords.scheme_of(stored)  # Refuses an unusable or too expensive hash before any work.
            if not password or entry in _wrong:
                return False
            if recognised.holds(stored, password):  # Verified in another process of this server.
                _right.put(entry, None)
                return True
            self.waited = True
            # The request may be cancelled before the verification ends; its result is cached anyway.
            right = await asyncio.shield(asyncio.wrap_future(_submit(entry, password)))
        return right


def _submit(entry: Entry, password: str) -> Future[bool]:
    """Return the running verification of *entry*, or start one. Raise Overloaded beyond the bounds."""
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
    """Cache the result of a verification and free its place. This runs in the thread that verified."""
    with _lock:
        if not done.cancelled() and done.exception() is None:
            (_right if done.result() else _wrong).put(entry, None)
            if done.result():
                recognised.add(entry[0], password)
        _running.pop(entry, None)


def stop() -> None:
    """Cancel waiting verifications, so that the process ends once the running ones finish."""
    global _threads
    with _lock:
        threads, _threads = _threads, ThreadPoolExecutor(THREADS, thread_name_prefix="verify")
        threads.shutdown(wait=False, cancel_futures=True)


def _within_budget(stored: str) -> bool:
    """Count one verification against *stored*. Return False if those of this minute are used up."""
    now = time.monotonic()
    since, used = _budgets.get(stored, (now, 0))
    if now - since >= 60:
        since, used = now, 0
    if used >= MAX_A_MINUTE:
        return False
    _budgets.put(stored, (since, used + 1))
    return True


def _after_fork() -> None:
    """Start with new threads in a child process; those of the parent do not exist in it."""
    global _threads, _lock
    _threads, _lock = ThreadPoolExecutor(THREADS, thread_name_prefix="verify"), threading.RLock()
    _running.clear()


os.register_at_fork(after_in_child=_after_fork)
