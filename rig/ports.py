"""Loopback ports for the servers of tests and benches: no outgoing connection and no other process takes them.

A port that the system chooses lies among those of outgoing connections, so a connection of another test may have it
before the server starts, or while it restarts.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOWEST = 10_000
BLOCK = 200
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")

_claims: list[socket.socket] = []  # They keep the blocks of this process for as long as it lives.


def free_port() -> int:
    """Return an unused loopback TCP port; never the same one twice in this process, nor one of another process."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port from {LOWEST} to {_highest()} is free")


def _claimed() -> Iterator[int]:
    """Yield the ports of blocks that no other process has claimed. An abstract socket is such a claim."""
    blocks = list(range(LOWEST, _highest() - BLOCK + 2, BLOCK))
    random.SystemRandom().shuffle(blocks)
    for block in blocks:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0devicehub-ports-{block}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        yield from range(block, block + BLOCK)


def _highest() -> int:
    """Return the port before those of outgoing connections."""
    return int(OUTGOING.read_text().split()[0]) - 1


_ports = _claimed()
