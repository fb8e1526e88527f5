"""Password verification for a server: quick hashes at once, slow ones in a few threads and once per password.

A slow hash (argon2id, bcrypt, PBKDF2) costs a tenth of a second of a core. What was right once is remembered
by the stored hash and a keyed digest of the password, so a reconnect storm costs one verification a device.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from authsvc.core import passwords

Entry = tuple[str, bytes]  # the stored hash, a keyed digest of the password

THREADS = 2  # slow verifications at once in one process
REMEMBERED = 20_000  # passwords; about 200 bytes each

MAX_WAITING = 64  # verifications that run or wait in this process
MAX_OF_ONE = 2  # of them against one stored hash: guesses at one name hold up nobody else

_key = secrets.token_bytes(32)  # of this process: what is remembered means nothing outside it
_known: OrderedDict[Entry, None] = OrderedDict()
_running: dict[Entry, Future[bool]] = {}
_lock = threading.Lock()
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")


class Overloaded(Exception):
    """Too many slow verifications wait. A fault and no deny: the password may be right."""


async def verify(password: str, stored: str) -> bool:
    """Whether *password* is the one of *stored*. Raises passwords.UnusableHash, Overloaded."""
    if passwords.is_fast(stored):
        return passwords.verify(password, stored)
    passwords.scheme_of(stored)  # refuses what is too costly before any work
    if not password or passwords.too_long(password):
        return False
    entry = (stored, hashlib.blake2b(password.encode("utf-8", "surrogatepass"), key=_key).digest())
    if entry in _known:
        _known.move_to_end(entry)
        return True
    right = await asyncio.shield(asyncio.wrap_future(_submit(entry, password)))
    if right:
        _known[entry] = None
        if len(_known) > REMEMBERED:
            _known.popitem(last=False)
    return right


def _submit(entry: Entry, password: str) -> Future[bool]:
    """The verification of *entry*: the one that runs already, or a new one if there is room."""
    stored = entry[0]
    with _lock:
        if (running := _running.get(entry)) is not None:
            return running
        of_one = sum(other == stored for other, _ in _running)
        if len(_running) >= MAX_WAITING or of_one >= MAX_OF_ONE:
            raise Overloaded
        future = _running[entry] = _threads.submit(passwords.verify, password, stored)
    future.add_done_callback(lambda _: _running.pop(entry, None))
    return future
