"""Verified slow passwords, shared by the processes of one server, so that each password costs one verification.

The parent process creates an anonymous block of memory, which its children inherit (`authsvc/gunicorn.py`). It holds a
random key and digests under that key, of a stored hash together with its password. No other program can create or
read them, and they are deleted with the parent. Without the block each process has only its own cache.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import os

VARIABLE = "AUTHSVC_SHARED_FD"  # The file descriptor of the block, which a fork inherits.
NAME = "devicehub-recognised"
KEY = 64
DIGEST = 32
SLOTS = 65_536
NEIGHBOURS = 8  # A digest can be in one of so many slots.
SIZE = KEY + SLOTS * DIGEST  # 2 MiB.
EMPTY = bytes(DIGEST)


def make() -> None:
    """Create the block for the processes that will be forked from this one. Do nothing except on Linux."""
    if VARIABLE not in os.environ and hasattr(os, "memfd_create"):
        block = os.memfd_create(NAME, 0)
        os.ftruncate(block, SIZE)
        os.pwrite(block, os.urandom(KEY), 0)
        os.environ[VARIABLE] = str(block)


def holds(stored: str, password: str) -> bool:
    """Return whether one of the processes verified *password* with the hash *stored*."""
    block = _block()
    if block is None:
        return False
    digest = _digest(block, stored, password)
    return any(block[place : place + DIGEST] == digest for place in _places(digest))


def add(stored: str, password: str) -> None:
    """Store a verified pair for all processes. Two writes to one slot at once leave a digest that matches nothing."""
    block = _block()
    if block is None:
        return
    digest = _digest(block, stored, password)
    places = _places(digest)
    free = (place for place in places if block[place : place + DIGEST] in (EMPTY, digest))
    place = next(free, places[digest[-1] % NEIGHBOURS])  # If all slots are full, replace one of them.
    block[place : place + DIGEST] = digest


@functools.cache
def _block() -> mmap.mmap | None:
    """Return the inherited block, or None. A program with the variable alone has no such file, or another one."""
    number = os.environ.get(VARIABLE, "")
    try:
        is_ours = os.readlink(f"/proc/self/fd/{int(number)}").startswith(f"/memfd:{NAME} ")
        return mmap.mmap(int(number), SIZE) if is_ours else None
    except (OSError, ValueError):
        return None


def _digest(block: mmap.mmap, stored: str, password: str) -> bytes:
    made = hashlib.blake2b(key=block[:KEY], digest_size=DIGEST)
    # Hashed to a fixed length, so that two pairs never join to one text.
    made.update(hashlib.sha256(stored.encode()).digest())
    made.update(password.encode("utf-8", "surrogatepass"))
    return made.digest()


def _places(digest: bytes) -> list[int]:
    first = int.from_bytes(digest[:4]) % SLOTS
    return [KEY + (first + step) % SLOTS * DIGEST for step in range(NEIGHBOURS)]
