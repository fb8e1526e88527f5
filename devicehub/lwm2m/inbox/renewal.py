"""Messages that were read with definitions which changed before they are stored: they are read again.

An import gives stored values their types; it waits for transactions that hold the definitions, and sees their rows.
So a value is either stored with the new definitions, or found by the import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devicehub.ingest.items import NEWS, Content, Judged
from devicehub.kinds.topics import MessageType
from devicehub.lwm2m import catalogue
from devicehub.lwm2m.catalogue import Catalogue
from devicehub.messages.decode import Document
from devicehub.messages.message import Message, Outcome, Unreadable

Read = Callable[[Message, Any, Catalogue], tuple[Document, Content]]


def renew(items: list[Judged], read_with: Catalogue | None, read: Read) -> list[Judged]:
    """Return *items* as the present definitions read them, and hold these until the transaction ends.

    *read_with* are the definitions with which they were read; *read* reads a message.
    """
    if not any(_has_values(item) for item in items):
        return items
    present = catalogue.held()
    if read_with is not None and read_with.revision == present.revision:
        return items
    return [_read_again(item, present, read) if _has_values(item) else item for item in items]


def _has_values(item: Judged) -> bool:
    return item.outcome in NEWS and item.own is not None and item.message_type is MessageType.DATA


def _read_again(item: Judged, definitions: Catalogue, read: Read) -> Judged:
    try:
        found, content = read(item.message, item.device, definitions)
    except Unreadable as error:
        return item.ended(Outcome.FAILED, error.reason, error.detail)
    outcome = Outcome.PARTIAL if found.notes else Outcome.STORED
    return item._replace(
        outcome=outcome, notes=found.notes, samples=content.samples, sign=content.sign, own=content.own
    )
