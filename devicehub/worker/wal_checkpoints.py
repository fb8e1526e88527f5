"""Checkpoints of SQLite's write-ahead log, made while batches are stored.

SQLite itself copies the log in the commit that made it too long, and then this one batch waits until tens of thousands
of pages are written to the disk (https://sqlite.org/wal.html, 2.2). Here they are copied while batches are stored, and
storing waits only for the few pages that were added meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection

EVERY = 0.2  # Seconds between two checks.
MESSAGES = 8_000  # A copy is made after so many messages: at most about 30,000 pages of the log.
PATIENCE = 250  # Milliseconds for which storing may have to wait for readers of the log.


class WalCheckpoints:
    """A task with a database connection of its own; *stored* returns how many messages were stored so far."""

    def __init__(self, stored: Callable[[], int]) -> None:
        self._stored = stored
        self._copied = 0

    def run(self) -> None:
        """Copy the log if it is time. Leave pages for later that cannot be copied now, because a reader uses them."""
        stored = self._stored()
        if stored - self._copied < MESSAGES:
            return
        self._copied = stored
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {PATIENCE}")
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")  # No other connection waits for this.
            cursor.execute("PRAGMA wal_checkpoint(RESTART)")  # The next writer begins the log anew.
