"""The rows of the audit, and the values in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any, NamedTuple

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone

from authsvc import secret_columns
from authsvc.audit import actions
from authsvc.audit.actors import current_actor, current_reason
from authsvc.models import AuditEntry
from authsvc.text import make_storable

MAX_KEY, MAX_ACTOR, MAX_ADDRESS = 260, 150, 45  # characters, as the columns have
MAX_VALUE = 2_000  # A value with more characters of JSON is cut, and becomes a text.
AT_ONCE = 500  # rows for each statement


_watched: ContextVar[set[tuple[str, str]] | None] = ContextVar("audit_watched", default=None)


class Change(NamedTuple):
    """The object of one row, with the changed values by column."""

    key: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


Values = tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]  # A change as a plain tuple.


def record(
    action: str,
    key: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    using: str = "default",
) -> AuditEntry:
    """Write one row about *action* on the object *key*, and return it. The caller's transaction holds the change too.

    Call it after the change: a check compares its time with credentials_changed_at.

    *key* is that of a device or an account, or `broker/<name>`, `grant/<id>`, `user/<name>`, `role/<name>`,
    `group/<slug>`. *before* and *after* are the changed values by column. Raise UnknownAction for a word that is not
    registered, ValueError for a secret column.
    """
    entry = next(_entries(action, [Change(key, before, after)]))
    entry.save(using=using, force_insert=True)
    _note([entry])
    return entry


def record_many(action: str, changes: Iterable[Change | Values], *, using: str = "default") -> int:
    """Write one row for each of *changes*, as record() does, with one statement for many; return their number."""
    entries, written = _entries(action, changes), 0
    while some := list(islice(entries, AT_ONCE)):
        written += len(AuditEntry.objects.using(using).bulk_create(some))
        _note(some)
    return written


@contextmanager
def watching() -> Iterator[None]:
    """Let was_recorded() know the entries that are written in this block."""
    token = _watched.set(set())
    try:
        yield
    finally:
        _watched.reset(token)


def was_recorded(action: str, key: str) -> bool:
    """Return whether an entry about *action* on *key* was written in the block of watching()."""
    return (action, key) in (_watched.get() or ())


def _note(entries: Iterable[AuditEntry]) -> None:
    if (watched := _watched.get()) is not None:
        watched.update((entry.action, entry.object_key) for entry in entries)


def _entries(action: str, changes: Iterable[Change | Values]) -> Iterator[AuditEntry]:
    actions.check(action)
    actor, now = current_actor(), timezone.now()
    for key, before, after in changes:
        yield AuditEntry(
            at=now,
            actor_kind=actor.kind,
            actor=make_storable(actor.name, MAX_ACTOR),
            address=make_storable(actor.address, MAX_ADDRESS),
            action=action,
            object_key=make_storable(key, MAX_KEY),
            before=_storable(before),
            after=_storable(after),
            reason=current_reason(),
        )


def _storable(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return *given* as JSON values that both databases can hold. Raise ValueError for a secret column."""
    for name in given or ():
        if secret_columns.is_secret(name):
            raise ValueError(f"{name} is a secret column, which the audit must not hold")
    return {name: _plain(value) for name, value in given.items()} if given else None


def _plain(value: Any) -> Any:
    text = json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)
    if len(text) > MAX_VALUE:
        return make_storable(text, MAX_VALUE) + "…"
    return json.loads(text, parse_constant=str) if _is_storable(text) else make_storable(text)


def _is_storable(text: str) -> bool:
    """Return whether *text* holds no NUL and no half of a surrogate pair, which PostgreSQL refuses in JSON."""
    return "\\u0000" not in text and make_storable(text) == text


def values(row: models.Model, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the values of *row* by column, of all columns or of *names*, without the secret ones."""
    hidden = secret_columns.of(type(row))
    return {
        field.attname: field.value_from_object(row)
        for field in row._meta.concrete_fields
        if field.name not in hidden and not field.primary_key and (names is None or field.name in names)
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of *before* and of *after* that differ.

    >>> difference({"site": "north", "name": "a"}, {"site": "south", "name": "a"})
    ({'site': 'north'}, {'site': 'south'})
    """
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}
