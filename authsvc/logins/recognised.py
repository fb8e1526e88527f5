"""Which slow passwords were right, shared by the processes of one server, so that each costs one verification.

The parent of the processes makes a block of memory that no file system knows, and hands it down
(`authsvc/gunicorn.py`). It holds a random key and digests under that key, of a stored hash together with its
password; nobody else can make or read them, and they end with the parent. Without it each process knows its own.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import os

VARIABLE = "AUTHSVC_SHARED_FD"  # the number of the open block, which a fork inherits
NAME = "devicehub-recognised"
KEY = 64
DIGEST = 32
SLOTS = 65_536
NEIGHBOURS = 8  # slots in which one digest may stand
SIZE = KEY + SLOTS * DIGEST  # 2 MiB
EMPTY = bytes(DIGEST)


def make() -> None:
    """Make the block for the processes that will be forked from this one. Does nothing where Linux is missing."""
    if VARIABLE not in os.environ and hasattr(os, "memfd_create"):
        block = os.memfd_create(NAME, 0)
        os.ftruncate(block, SIZE)
        os.pwrite(block, os.urandom(KEY), 0)
        os.environ[VARIABLE] = str(block)


def holds(stored: str, password: str) -> bool:
    """Whether *password* was right for the hash *stored* in one of the processes."""
    block = _block()
    if block is None:
        return False
    digest = _digest(block, stored, password)
    return any(block[place : place + DIGEST] == digest for place in _places(digest))


def add(stored: str, password: str) -> None:
    """Tell the others. Two that write to one place at once leave what is nobody's digest."""
    block = _block()
    if block is None:
        return
    digest = _digest(block, stored, password)
    places = _places(digest)
    free = (place for place in places if block[place : place + DIGEST] in (EMPTY, digest))
    place = next(free, places[digest[-1] % NEIGHBOURS])  # a full row loses one of its own
    block[place : place + DIGEST] = digest


@functools.cache
def _block() -> mmap.mmap | None:
    """The block that was handed down. A program that inherited the variable alone has none, or another file there."""
    number = os.environ.get(VARIABLE, "")
    try:
        is_ours = os.readlink(f"/proc/self/fd/{int(number)}").startswith(f"/memfd:{NAME} ")
        return mmap.mmap(int(number), SIZE) if is_ours else None
    except (OSError, ValueError):
        return None


def _digest(block: mmap.mmap, stored: str, password: str) -> bytes:
    made = hashlib.blake2b(key=block[:KEY], digest_size=DIGEST)
    # Of a fixed length, so that no two pairs join to one text.
    made.update(hashlib.sha256(stored.encode()).digest())
    made.update(password.encode("utf-8", "surrogatepass"))
    return made.digest()


def _places(digest: bytes) -> list[int]:
    first = int.from_bytes(digest[:4]) % SLOTS
    return [KEY + (first + step) % SLOTS * DIGEST for step in range(NEIGHBOURS)]
