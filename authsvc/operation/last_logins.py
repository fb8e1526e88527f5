"""The last login of each device and account: collected in memory, written in the background, one row each.

A first login, and the first one with another password, are written in the next round; the time of a repeated one at
most once a minute. Processes write the same rows, and the later login wins.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from authsvc.caches import BoundedCache
from authsvc.conf import cache_size
from authsvc.core.access import Verdict
from authsvc.credentials import mark_of
from authsvc.models import LastLogin
from authsvc.text import make_storable

MAX_PENDING = 20_000  # Keys between two writes.
MAX_WRITTEN = 5_000  # Rows in one transaction; the rest waits for the next second.
ROWS = 250  # Rows in one statement, so that the thread holds the interpreter for short times only.


class Login:
    """A client that logged in: its key, its client id, and the stored hash that its password matched.

    *hash* is empty after a login with a token. *is_current* is None then, and False for the previous password.
    """

    __slots__ = ("client_id", "hash", "is_current", "key")

    def __init__(self, key: str, client_id: str, stored: str, is_current: bool | None) -> None:
        self.key = key
        self.client_id = client_id
        self.hash = stored
        self.is_current = is_current


class _Row:
    """The pending logins of one key."""

    __slots__ = (
        "address",
        "at",
        "broker",
        "client_id",
        "current",
        "current_at",
        "first_at",
        "previous",
        "previous_at",
    )

    def __init__(self, at: float) -> None:
        self.first_at = self.at = at
        self.broker = self.client_id = self.address = ""
        self.current = self.previous = ""  # The stored hashes.
        self.current_at: float | None = None
        self.previous_at: float | None = None


_pending: dict[str, _Row] = {}
_first: set[str] = set()  # The keys in _pending that are written in the next round.
_known: BoundedCache[str, tuple[str, str]] = BoundedCache(
    cache_size
)  # Current and previous hash that were written.
dropped = 0  # Logins that were not noted because MAX_PENDING keys were pending.


def login_of(verdict: Verdict) -> Login | None:
    """Return the login that *verdict* allowed, or None if it has no principal."""
    principal, secret, question = verdict.principal, verdict.secret, verdict.question
    if principal is None or question is None:
        return None
    client_id = question.client.client_id or ""
    if secret is None:
        return Login(principal.key, client_id, "", None)
    return Login(principal.key, client_id, secret.hash, secret is principal.secrets[0])


def add(login: Login, broker: str, address: str, at: float) -> None:
    """Collect *login* through *broker* at the Unix time *at*."""
    global dropped
    row = _pending.get(login.key)
    if row is None:
        if len(_pending) >= MAX_PENDING:
            dropped += 1
            return
        row = _pending[login.key] = _Row(at)
    row.first_at = min(row.first_at, at)
    if at >= row.at:
        row.at, row.broker, row.client_id, row.address = at, broker, login.client_id, address
    if login.is_current and at >= (row.current_at or 0):
        row.current_at, row.current = at, login.hash
    elif login.is_current is False and at >= (row.previous_at or 0):
        row.previous_at, row.previous = at, login.hash
    current, previous = _known.get(login.key, (None, None))
    if (
        current is None
        or (row.current and row.current != current)
        or (row.previous and row.previous != previous)
    ):
        _first.add(login.key)


def has_first() -> bool:
    """Return whether a login is pending that must not wait."""
    return bool(_first)


def is_full() -> bool:
    """Return whether too many keys are pending to wait longer."""
    return len(_pending) > MAX_PENDING // 2


def due(*, everything: bool) -> list[str]:
    """Return the keys to be written now, in the order in which every process writes them."""
    return sorted(_pending if everything else _first)[:MAX_WRITTEN]


def write(keys: list[str]) -> None:
    """Write the pending logins of *keys* in the caller's transaction."""
    for start in range(0, len(keys), ROWS):
        rows = [_columns(key, _pending[key]) for key in keys[start : start + ROWS]]
        with connection.cursor() as cursor:
            cursor.execute(_UPSERT[connection.vendor], [json.dumps(rows)])
        time.sleep(0)


def finish(keys: list[str]) -> None:
    """Drop the logins of *keys*, which are committed."""
    for key in keys:
        row = _pending.pop(key)
        _first.discard(key)
        current, previous = _known.get(key, ("", ""))
        _known.put(key, (row.current or current, row.previous or previous))


def clear() -> None:
    """Drop everything, between tests."""
    _pending.clear()
    _first.clear()
    _known.clear()


def _columns(key: str, row: _Row) -> dict[str, Any]:
    return {
        "key": key[:260],
        "first_at": _moment(row.first_at),
        "at": _moment(row.at),
        "broker": make_storable(row.broker, 100),
        "client_id": make_storable(row.client_id, 128),
        "address": make_storable(row.address, 45),
        "current_at": _moment(row.current_at),
        "current_mark": mark_of(row.current),
        "previous_at": _moment(row.previous_at),
    }


def _moment(at: float | None) -> str | None:
    if at is None:
        return None
    moment = datetime.fromtimestamp(at, UTC)
    return str(connection.ops.adapt_datetimefield_value(moment))


_TYPES = {
    "key": "text", "first_at": "timestamptz", "at": "timestamptz", "broker": "text", "client_id": "text",
    "address": "text", "current_at": "timestamptz", "current_mark": "text", "previous_at": "timestamptz",
}  # fmt: skip
_TABLE = LastLogin._meta.db_table


def _upsert(rows: str) -> str:
    """Return the statement that writes *rows*, an expression for a table of JSON. The later login wins."""
    later = f"excluded.at >= {_TABLE}.at"
    with_current = f"excluded.current_at >= coalesce({_TABLE}.current_at, excluded.current_at)"
    with_previous = f"excluded.previous_at >= coalesce({_TABLE}.previous_at, excluded.previous_at)"
    conditions = {
        "at": later,
        "broker": later,
        "client_id": later,
        "address": later,
        "current_at": with_current,
        "current_mark": with_current,
        "previous_at": with_previous,
    }
    changes = ", ".join(
        f"{name} = CASE WHEN {condition} THEN excluded.{name} ELSE {_TABLE}.{name} END"
        for name, condition in conditions.items()
    )
    # Without WHERE the parser of SQLite would read ON as that of a join.
    return f"INSERT INTO {_TABLE} ({', '.join(_TYPES)}) {rows} WHERE true ON CONFLICT (key) DO UPDATE SET {changes}"


_UPSERT = {
    "sqlite": _upsert(
        "SELECT " + ", ".join(f"json_extract(value, '$.{name}')" for name in _TYPES) + " FROM json_each(%s)"
    ),
    "postgresql": _upsert(
        f"SELECT {', '.join(_TYPES)} FROM json_to_recordset(%s) AS found("
        + ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
        + ")"
    ),
}
