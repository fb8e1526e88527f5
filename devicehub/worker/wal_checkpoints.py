"""SQLite's write-ahead log, copied into the database beside storing.

SQLite itself copies it in the commit that made it too long, and then this one batch waits for tens of thousands of
pages to come to the disk (https://sqlite.org/wal.html, 2.2). Here they are copied while batches are stored, and
storing waits for the few pages that were added meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection

EVERY = 0.2  # seconds between two looks
MESSAGES = 8_000  # stored since the last copy; where each has pages of its own, about 30,000 pages of the log
PATIENCE = 250  # milliseconds that storing may have to wait for those who still read the log


class WalCheckpoints:
    """A task for the thread of its own connection; *stored* tells how many messages were stored so far."""

    def __init__(self, stored: Callable[[], int]) -> None:
        self._stored = stored
        self._copied = 0

    def run(self) -> None:
        """Copy the log if it is time. What cannot be copied now, since somebody reads it, is left for later."""
        stored = self._stored()
        if stored - self._copied < MESSAGES:
            return
        self._copied = stored
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {PATIENCE}")
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")  # nobody waits for this one
            cursor.execute("PRAGMA wal_checkpoint(RESTART)")  # and the log begins anew
