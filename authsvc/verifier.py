"""Password verification for a server: quick hashes at once, slow ones in a few threads and once per password.

A slow hash (argon2id, bcrypt, PBKDF2) costs a tenth of a second of a core. What was right once is remembered
by the stored hash and a keyed digest of the password, so a reconnect storm costs one verification a device.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from authsvc.core import passwords

THREADS = 2  # slow verifications at once in one process
REMEMBERED = 20_000  # passwords; about 200 bytes each

_key = secrets.token_bytes(32)  # of this process: what is remembered means nothing outside it
_known: OrderedDict[tuple[str, bytes], None] = OrderedDict()
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")


async def verify(password: str, stored: str) -> bool:
    """Whether *password* is the one of *stored*. Raises passwords.UnusableHash."""
    if passwords.is_fast(stored):
        return passwords.verify(password, stored)
    passwords.scheme_of(stored)  # refuses what is too costly before any work
    if not password or passwords.too_long(password):
        return False
    entry = (stored, hashlib.blake2b(password.encode("utf-8", "surrogatepass"), key=_key).digest())
    if entry in _known:
        _known.move_to_end(entry)
        return True
    right = await asyncio.get_running_loop().run_in_executor(_threads, passwords.verify, password, stored)
    if right:
        _known[entry] = None
        if len(_known) > REMEMBERED:
            _known.popitem(last=False)
    return right
