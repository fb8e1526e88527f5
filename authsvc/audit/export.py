"""The export of entries: CSV for people, JSON lines for programs. Memory stays the same for any number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.db.models import QuerySet

from authsvc.audit.actions import label
from authsvc.models import AuditEntry
from authsvc.text import harmless

AT_ONCE = 1_000  # entries of one query
COLUMNS = (
    *("at", "actor_kind", "actor", "address", "action", "label", "object_key"),
    *("before", "after", "reason"),
)

Entries = Sequence[AuditEntry]


def pages(rows: QuerySet[AuditEntry]) -> Iterator[list[AuditEntry]]:
    """Yield *rows* from the newest to the oldest, AT_ONCE at a time; each page is a query of its own."""
    rows, last = rows.order_by("-pk"), None
    while page := list((rows if last is None else rows.filter(pk__lt=last))[:AT_ONCE]):
        yield page
        last = page[-1].pk


def as_dict(entry: AuditEntry) -> dict[str, Any]:
    """Return the values of *entry* by column; the time is in ISO 8601, in UTC."""
    found = {name: getattr(entry, name) for name in COLUMNS if name not in ("at", "label")}
    return {"at": entry.at.isoformat(), **found, "label": label(entry.action)}


def ndjson(rows: QuerySet[AuditEntry]) -> Iterator[str]:
    """Yield *rows* as lines of JSON, in texts of many lines."""
    for page in pages(rows):
        yield "".join(f"{json.dumps(as_dict(entry), ensure_ascii=False)}\n" for entry in page)


def as_csv(rows: QuerySet[AuditEntry]) -> Iterator[str]:
    """Yield *rows* as CSV with a head, in texts of many lines."""
    yield _lines([COLUMNS])
    for page in pages(rows):
        yield _lines([_cells(as_dict(entry)) for entry in page])


def _cells(found: dict[str, Any]) -> list[str]:
    texts = (
        value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
        for value in (found[name] for name in COLUMNS)
    )
    return [harmless(text) for text in texts]


def _lines(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


# The forms by their names, each with its media type.
FORMS: dict[str, tuple[Callable[[QuerySet[AuditEntry]], Iterator[str]], str]] = {
    "csv": (as_csv, "text/csv; charset=utf-8"),
    "ndjson": (ndjson, "application/x-ndjson; charset=utf-8"),
}
