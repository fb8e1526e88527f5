"""Values of resources in answers: each as JSON has it, exactly, in pages of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from math import floor
from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Length
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from devicehub.api import paging
from devicehub.api.bodies import moment
from devicehub.api.fields import Moment, Selectable
from devicehub.lwm2m.api.objects import TypeField
from devicehub.messages.lwm2m import base64_text, paths
from devicehub.messages.lwm2m.values import DataType

MOST_SIZE = 8 << 20  # Characters and bytes of the values of one page; it ends earlier if they are long.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = range(-62_135_596_800, 253_402_300_800)  # The seconds of the years 1 to 9999.
# A value of these types stands in a column of text or bytes.
LONG = frozenset({DataType.STRING, DataType.CORELNK, DataType.OBJLNK, DataType.OPAQUE})


@extend_schema_field(
    {
        "type": ["string", "number", "boolean", "null"],
        "description": (
            "The value by its type: a number with all its digits (also of 64 bits), true or false, or a text. "
            "Opaque is base64, Objlnk is 3303:0, Time is RFC 3339. "
            "A number that no float holds exactly is a text with its digits, "
            "and so are the seconds of a Time beyond the years 1 to 9999."
        ),
        "examples": [21.5, True, "3303:0", "2026-12-01T06:00:00Z", "AQL/"],
    }
)
class HeldField(serializers.JSONField):
    """A value as plain() returns it."""


class Lwm2mEventValueSerializer(serializers.Serializer):
    """One value of an event."""

    path = serializers.CharField(help_text="Its path, such as /3303/0/5700.")
    object = serializers.CharField(
        allow_null=True, help_text="The name of its object, or null if that is not known."
    )
    name = serializers.CharField(
        allow_null=True, help_text="The name of its resource, or null if that is not known."
    )
    type = TypeField()
    unit = serializers.CharField(
        help_text="The unit that the definition or the sensor itself names, or an empty text."
    )
    value = HeldField()
    timestamp = Moment(help_text="The time of measurement, or else of receipt.")

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return the members of a value, all at once: a page has many values."""
        known = instance.known
        return {
            "path": f"/{instance.path}",
            "object": known.object.name if known else None,
            "name": known.name if known else None,
            "type": instance.type,
            "unit": instance.unit,
            "value": plain(instance.type, instance.value),
            "timestamp": moment(instance.timestamp),
        }


class Lwm2mValueSerializer(Lwm2mEventValueSerializer, Selectable):
    """One value of a resource or resource instance."""

    received_at = Moment(help_text="The time of receipt.")

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return the selected members of a value."""
        found = {**super().to_representation(instance), "received_at": moment(instance.received_at)}
        return {name: found[name] for name in self.fields}


class PathField(serializers.CharField):
    """A parameter with a path, of which the first slash may be missing."""

    default_error_messages = {
        "path": "Write a path such as /3303/0/5700.",
        "value": "Name a resource: /3303/0/5700.",
    }

    def __init__(self, *, holds_value: bool = False, **options: Any) -> None:
        self._holds_value = holds_value
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> Any:
        """Return the ids of the path. Raise ValidationError."""
        try:
            found = paths.parse("/" + str(data).strip("/"))
        except ValueError:
            self.fail("path")
        if self._holds_value and not paths.holds_value(found):
            self.fail("value")
        return found


def plain(kind: str, value: Any) -> Any:
    """Return *value* of the type *kind* as JSON has it.

    >>> plain("Time", Decimal("0.25")), plain("Time", 2**60), plain("Opaque", bytes([1, 255]))
    ('1970-01-01T00:00:00.25Z', 1152921504606846976, 'Af8=')
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return base64_text.encode(bytes(value))
    if kind == DataType.TIME and isinstance(value, int | Decimal) and TIMES[0] <= value <= TIMES[-1]:
        return _time(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _time(seconds: int | Decimal) -> str:
    """Return a time in RFC 3339 with all its digits."""
    whole = floor(seconds)
    text = moment(EPOCH + timedelta(seconds=whole))
    if seconds == whole or not isinstance(seconds, Decimal):
        return text
    digits = Context(prec=len(seconds.as_tuple().digits) + 20, traps=[])
    fraction = f"{digits.subtract(seconds, Decimal(whole)):f}".lstrip("0").rstrip("0")
    return f"{text.removesuffix('Z')}{fraction}Z"


def page_of(rows: QuerySet[Any], order: Sequence[str], cursor: str, limit: int) -> paging.Page:
    """Return a page of *rows*, which hold typed values, as paging.of_rows() does; with fewer rows if these are long."""
    sized = rows.defer("text", "opaque").annotate(
        size=Coalesce(Length("text"), 0) + Coalesce(Length("opaque"), 0)
    )
    page = paging.of_rows(sized, order, cursor, limit)
    at = paging.parse(cursor, len(order))
    read = reversed(page.rows) if at is not None and at.backward else page.rows
    fitting = max(1, fit((row.size for row in read), MOST_SIZE))
    if fitting < len(page.rows):
        page = paging.of_rows(sized, order, cursor, fitting)
    fill(page.rows)
    return page


def fit(sizes: Iterable[int], most: int) -> int:
    """Return how many of *sizes*, from the first on, are *most* together."""
    count = 0
    for size in sizes:
        most -= size
        if most < 0:
            break
        count += 1
    return count


def fill(rows: Sequence[Any]) -> None:
    """Read the texts and bytes of *rows*, all of one model, by one query; numbers need none."""
    keys = [row.pk for row in rows if row.size or row.type in LONG]
    held = {}
    if keys:
        found = type(rows[0])._default_manager.filter(pk__in=keys).order_by()
        held = {pk: columns for pk, *columns in found.values_list("pk", "text", "opaque")}
    for row in rows:
        row.text, row.opaque = held.get(row.pk, (None, None))
