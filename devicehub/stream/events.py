"""An event of a stream, and the reach of those who may see it."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import orjson

from devicehub.stream import cursors
from devicehub.stream.cursors import Place

READINGS, STATUS, COMMANDS, DENIALS = "readings", "status", "commands", "denials"
NAMES = (READINGS, STATUS, COMMANDS, DENIALS)


class Event:
    """Something that happened: to the device *key* of the kind *slug* at *site*, or to none if *slug* is empty."""

    def __init__(self, name: str, slug: str, key: str, site: str, content: Mapping[str, Any]) -> None:
        self.name, self.slug, self.key, self.site = name, slug, key, site
        self._data = dumps(content)
        self.place = Place(0, 0, ())  # The place after this event.

    def copy(self) -> Event:
        """Return the same event for another place."""
        found = copy.copy(self)
        found.__dict__.pop("wire", None)
        return found

    @cached_property
    def wire(self) -> bytes:
        """The event as it is sent. It is made once for all streams."""
        cursor = cursors.write(*self.place)
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (cursor.encode(), self.name.encode(), self._data)


def dumps(content: Any) -> bytes:
    """Return *content* as JSON in one line. NaN and infinite numbers become null."""
    try:
        return orjson.dumps(content, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError:  # An integer beyond 64 bits, or half a surrogate pair.
        return json.dumps(content, default=_plain, separators=(",", ":")).encode()


def moment(value: datetime | None) -> str | None:
    """Return *value* as RFC 3339 in UTC."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    return str(value)
