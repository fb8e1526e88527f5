"""The values of resources: the latest of each, and their history.

A value stands in the columns of its type, so that each is kept exactly: *integer* holds an Integer, a Time in seconds
since 1970, a Boolean as 0 or 1, and an Unsigned Integer below 2^63; *text* holds a String, a Corelnk, an Objlnk as
`3:0`, and numbers that no other column holds exactly; *opaque* holds bytes; *number* holds what charts show.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from django.db import models

from devicehub.lwm2m.models.endpoints import Endpoint
from devicehub.lwm2m.models.objects import ResourceType
from devicehub.messages.lwm2m.values import DataType, ObjectLink

MOST_INTEGER = 2**63  # The first integer that *integer* cannot hold.
NAMES = {kind: kind.value for kind in DataType}  # Faster than the property of an enum.
COLUMNS = ("type", "number", "integer", "text", "opaque")
MOST_DIGITS = 4_300  # Python converts no longer text to an integer.
NEGATIVE_ZERO = "-0.0"  # A column of floats of SQLite drops its sign.


class TypedValue(models.Model):
    """A value of a resource or resource instance. *path* is such as `3303/0/5700`."""

    path = models.CharField(max_length=23)
    type = models.CharField(max_length=16, choices=[(kind.value, kind.value) for kind in DataType])
    number = models.FloatField(null=True, blank=True)
    integer = models.BigIntegerField(null=True, blank=True)
    text = models.TextField(null=True, blank=True)  # noqa: DJ001 - NULL means that the value is not a text
    opaque = models.BinaryField(null=True, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        """Return the path with the value, if its columns were read: the pages of the admin name rows without it."""
        return f"/{self.path}" if self.get_deferred_fields() else f"/{self.path}: {self.value}"

    @property
    def value(self) -> Any:
        """The value: str, int, float, Decimal, bool, bytes or ObjectLink; a Time is seconds since 1970."""
        return read(self.type, self.number, self.integer, self.text, self.opaque)


def columns(kind: DataType, value: Any) -> tuple[str, float | None, int | None, str | None, bytes | None]:
    """Return the *value* of a type as the columns of COLUMNS."""
    name = NAMES[kind]
    if kind is DataType.FLOAT and type(value) is float and value - value == 0:  # Most values, and finite.
        return name, value, None, None if value or math.copysign(1, value) > 0 else NEGATIVE_ZERO, None
    if kind is DataType.FLOAT:
        return name, _number(value), None, None if type(value) is float else str(value), None
    if kind is DataType.BOOLEAN:
        return name, float(value), int(value), None, None
    if kind in _INTEGERS:
        if isinstance(value, int) and -MOST_INTEGER <= value < MOST_INTEGER:
            return name, float(value), value, None, None
        return name, _number(value), None, str(value), None
    if kind is DataType.OPAQUE:
        return name, None, None, None, bytes(value)
    return name, None, None, str(value), None


def _number(value: Any) -> float | None:
    """Return *value* for a chart, or None if it is beyond every float."""
    number = float(value)
    return number if math.isfinite(number) else None


def read(kind: str, number: Any, integer: Any, text: Any, opaque: Any) -> Any:
    """Return the value that columns() wrote."""
    if kind == DataType.BOOLEAN:
        return bool(integer)
    if kind in _INTEGERS:
        if integer is not None or text is None:
            return integer
        return int(text) if len(text) <= MOST_DIGITS and text.lstrip("-").isdigit() else Decimal(text)
    if kind == DataType.FLOAT:
        return number if text is None else -0.0 if text == NEGATIVE_ZERO else Decimal(text)
    if kind == DataType.OPAQUE:
        return None if opaque is None else bytes(opaque)
    if kind == DataType.OBJLNK and text is not None:
        object_id, _, instance_id = text.partition(":")
        return ObjectLink(int(object_id), int(instance_id))
    return text


_INTEGERS = frozenset({DataType.INTEGER, DataType.UNSIGNED_INTEGER, DataType.TIME})


class Resource(TypedValue):
    """The latest value of one resource, or resource instance, of an endpoint.

    *timestamp* is the time of measurement, or else of receipt. *resource_type* is None as long as no definition of
    its object is there.
    """

    device = models.ForeignKey(
        Endpoint, models.CASCADE, related_name="resources", db_index=False, verbose_name="endpoint"
    )
    resource_type = models.ForeignKey(
        # Without an index, which each new value would change; definitions are seldom deleted.
        ResourceType,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
    )
    object_id = models.PositiveIntegerField("object")
    object_instance = models.PositiveIntegerField("object instance")
    resource_id = models.PositiveIntegerField("resource")
    resource_instance = models.PositiveIntegerField("resource instance", null=True, blank=True)
    timestamp = models.DateTimeField()
    received_at = models.DateTimeField()

    class Meta:
        verbose_name = "LwM2M resource value"
        ordering = ["device", "object_id", "object_instance", "resource_id", "resource_instance"]
        constraints = [models.UniqueConstraint(fields=["device", "path"], name="lwm2m_resource_key")]
        indexes = [models.Index(fields=["object_id", "resource_id"], name="lwm2m_resource_ids")]


class ResourceValue(TypedValue):
    """One value of the history of an endpoint; *event* is the key of the Event that brought it.

    The database checks neither key, which would cost as much as writing the row: the event is written in the same
    transaction, and its own key of the endpoint is checked. The key of the event has no index for the same reason;
    Event.values() finds its values by their paths and times.
    """

    device = models.ForeignKey(
        Endpoint,
        models.CASCADE,
        related_name="resource_values",
        db_index=False,
        db_constraint=False,
        verbose_name="endpoint",
    )
    timestamp = models.DateTimeField(db_index=True)
    received_at = models.DateTimeField()
    event = models.ForeignKey(
        "lwm2m.Event", models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )

    class Meta:
        verbose_name = "LwM2M value"
        ordering = ["-timestamp"]
        indexes = [models.Index(fields=["device", "path", "timestamp"], name="lwm2m_value_history")]
