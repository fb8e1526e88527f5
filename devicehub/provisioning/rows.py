"""Rows that an action changes: read again under a lock, so that nothing that was read earlier is written back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from django.db import models

Row = TypeVar("Row", bound=models.Model)


def locked(row: Row) -> Row:
    """Return *row* as the database has it now, locked in the caller's transaction."""
    # Rows that refer to it, such as new readings, need not wait for this lock.
    return type(row)._base_manager.select_for_update(no_key=True).get(pk=row.pk)


def save(changed: Row, row: Row, fields: Iterable[str]) -> None:
    """Save *fields* of *changed*, which locked() returned, and copy them to *row*, the instance of the caller."""
    names = list(fields)
    changed.save(update_fields=names)
    for name in names:
        setattr(row, name, getattr(changed, name))
