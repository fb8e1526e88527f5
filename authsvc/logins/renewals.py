"""Changes after a login: the use of a new password is noted and ends the previous one, an imported hash is replaced."""

from __future__ import annotations

import queue
from collections.abc import Callable

import structlog
from django.db import Error

from authsvc import audit, background
from authsvc.caches import BoundedCache
from authsvc.conf import cache_size, settings
from authsvc.core import passwords
from authsvc.core.access import LoginQuestion, Verdict

log = structlog.get_logger(__name__)

MAX_PENDING = 10_000
ACTOR = audit.system("authorization service")
STRONG = 22  # So many letters and digits hold 128 random bits.

_pending: queue.Queue[Callable[[], None]] = queue.Queue(MAX_PENDING)
# The current hash whose use was queued, by key. Without it each login in a long overlap would write.
_queued: BoundedCache[str, str] = BoundedCache(cache_size)


def note(verdict: Verdict) -> None:
    """Queue the changes after the login in *verdict*. No I/O; if the queue is full, the next login retries."""
    principal, secret, question = verdict.principal, verdict.secret, verdict.question
    if secret is None or principal is None or principal.keeper is None:
        return
    keeper, key, current = principal.keeper, principal.key, principal.secrets[0]
    if secret is current and len(principal.secrets) > 1:
        previous = principal.secrets[1].hash
        if (principal.retires_previous or _queued.get(key) != current.hash) and _queue(
            lambda: keeper.retire_previous(key, current.hash, previous)
        ):
            _queued.put(key, current.hash)
    if settings.upgrade_hashes and secret is current and isinstance(question, LoginQuestion):
        stored, password = secret.hash, question.password
        if (
            not stored.startswith("{SSHA256}")
            and _looks_generated(password)
            and passwords.reads_all(password, stored)
        ):
            _queue(lambda: keeper.renew_hash(key, stored, passwords.hash_generated(password)))


def flush() -> int:
    """Run the queued changes and return their number. Raise django.db.Error; the rest stays queued."""
    done = 0
    while not _pending.empty():
        job = _pending.get_nowait()
        try:
            with audit.acting(ACTOR):
                job()
        except Error:
            _queue(job)
            raise
        done += 1
    return done


def clear() -> None:
    """Drop all queued changes, between tests."""
    _queued.clear()
    while not _pending.empty():
        _pending.get_nowait()


def _looks_generated(password: str) -> bool:
    """Return whether one salted SHA-256 is enough for *password*: it is long, and has many different characters."""
    return len(password) >= STRONG and len(set(password)) >= STRONG // 2


def _queue(job: Callable[[], None]) -> bool:
    """Queue *job*; return False if the queue is full."""
    try:
        _pending.put_nowait(job)
    except queue.Full:
        log.warning("renewals.full")
        return False
    background.wake()
    return True


background.every_second(flush)
