"""Values of resources as people read them. Pages read the beginnings of long texts and bytes, and their lengths."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import BinaryField, QuerySet
from django.db.models.functions import Length, Substr
from django.template.defaultfilters import pluralize

from authsvc.text import in_utc
from devicehub.lwm2m.models.resources import read
from devicehub.messages.lwm2m.values import DataType, ObjectLink

LONGEST = 120  # Characters of a text; the rest is cut.
SHOWN_BYTES = 24
READ = 512  # Characters of a text that are read: all digits of a number that is not very long.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOTHING = ObjectLink(65535, 65535)  # A link to no object.
NUMBERS = frozenset({DataType.INTEGER, DataType.UNSIGNED_INTEGER, DataType.FLOAT})
TEXTS = frozenset({DataType.STRING, DataType.CORELNK})


class Shown(NamedTuple):
    """A value as text; *more* stands beside it. A link names the *object_id* and *instance_id* that it leads to."""

    text: str
    more: str = ""
    is_number: bool = False
    is_code: bool = False
    object_id: int | None = None
    instance_id: int | None = None


def beginnings(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return *rows*, which hold typed values, with the beginnings of their texts and bytes for shown_of()."""
    found: QuerySet[Any] = rows.defer("text", "opaque").annotate(
        text_read=Substr("text", 1, READ),
        text_length=Length("text"),
        opaque_read=Substr("opaque", 1, SHOWN_BYTES, output_field=BinaryField()),
        opaque_length=Length("opaque"),
    )
    return found


def shown_of(row: Any) -> Shown:
    """Return the value of a row of beginnings()."""
    if row.type not in TEXTS and (row.text_length or 0) > READ:
        return Shown(f"{row.text_read[: LONGEST - 1]}…", is_number=True)
    # SQLite has NULL for the beginning of no bytes.
    opaque = row.opaque_read if row.opaque_length else None if row.opaque_length is None else b""
    value = read(row.type, row.number, row.integer, row.text_read, opaque)
    return shown(row.type, value, row.opaque_length if row.type == DataType.OPAQUE else row.text_length)


def shown(kind: str, value: Any, length: int | None = None) -> Shown:
    """Return the *value* of the type *kind*. *length* is that of the whole text or bytes, if *value* begins them.

    >>> shown("Float", 21.5).text, shown("Boolean", False).text, shown("Time", 0).text
    ('21.5', 'no', '1970-01-01 00:00:00 UTC')
    >>> shown("Opaque", b"\\x01\\xff"), shown("Objlnk", ObjectLink(3303, 1)).text
    (Shown(text='01 ff', more='2 bytes', is_number=False, is_code=True, object_id=None, instance_id=None), '/3303/1')
    """
    if value is None:
        return Shown("–")
    if kind == DataType.BOOLEAN:
        return Shown("yes" if value else "no")
    if kind == DataType.TIME:
        return _time(value)
    if kind == DataType.OPAQUE:
        return _opaque(bytes(value), length)
    if kind == DataType.OBJLNK and isinstance(value, ObjectLink):
        if value == NOTHING:
            return Shown("no object")
        place = f"/{value.object_id}/{value.instance_id}"
        return Shown(place, "", is_code=True, object_id=value.object_id, instance_id=value.instance_id)
    if kind in NUMBERS:
        return Shown(number(value), is_number=True)
    text = str(value)
    if not text:
        return Shown("", "empty text")
    length = len(text) if length is None else length
    cut = text if length <= LONGEST else f"{text[: LONGEST - 1]}…"
    more = "" if cut is text else f"{length:,} characters"
    return Shown(cut, more, is_code=kind == DataType.CORELNK)


def number(value: int | float | Decimal) -> str:
    """Return a number with all digits that it has, and a minus sign.

    >>> number(-1284), number(0.1), number(1e-9), number(2**63), number(100000.0)
    ('−1,284', '0.1', '1e-09', '9,223,372,036,854,775,808', '100,000')
    """
    if isinstance(value, float):
        text = f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    elif isinstance(value, int):
        text = f"{value:,}"
    else:
        text = str(value)
    return (
        text[: LONGEST - 1] + "…" if len(text) > LONGEST else text.replace("-", "−", 1) if value < 0 else text
    )


def _time(seconds: Any) -> Shown:
    try:
        moment = EPOCH + timedelta(seconds=float(seconds))
    except OverflowError:
        return Shown(number(seconds), "seconds since 1970", is_number=True)
    return Shown(in_utc(moment))


def _opaque(content: bytes, length: int | None) -> Shown:
    length = len(content) if length is None else length
    more = f"{length:,} byte{pluralize(length)}"
    cut = " …" if length > SHOWN_BYTES else ""
    return Shown(content[:SHOWN_BYTES].hex(" ") + cut, more, is_code=True)
