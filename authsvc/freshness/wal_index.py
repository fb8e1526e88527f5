"""The header of SQLite's WAL index, read in the memory that SQLite has mapped.

Each commit in WAL mode rewrites this header, and a connection compares it with its copy to see whether anything was
committed (https://sqlite.org/walformat.html#the_wal_index_header). The comparison needs no system call.
Opening `-shm` again would be simpler, but closing it would release all locks of SQLite in this process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

MAPS = "/proc/self/maps"  # Linux only.
HEADER = 96  # Bytes: two copies of 48, of which the second is written first.


def header(shared: str) -> Callable[[], bytes] | None:
    """Return a function that reads the header of the index at the absolute path *shared* (`-shm`).

    Call it only while a connection of this process has that index open: SQLite unmaps it with the last one.
    Return None if the mapping is not certain: not on Linux, a removed file, a path with special characters, or two
    SQLite libraries in one process.
    """
    try:
        with open(MAPS, encoding="utf-8", errors="surrogateescape") as maps:
            found = [line for line in maps if line.rstrip("\n").endswith(shared)]
    except OSError:
        return None
    starts = []
    for line in found:
        addresses, _, offset, _, _, path = line.rstrip("\n").split(maxsplit=5)
        if path == shared and int(offset, 16) == 0:
            starts.append(int(addresses.partition("-")[0], 16))
    if len(starts) != 1:
        return None
    memory = (ctypes.c_char * HEADER).from_address(starts[0])
    return lambda: memory.raw
