"""The bodies of requests and answers: JSON of bounded size, with whole numbers of 64 bits and times in UTC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from django.http.request import RawPostDataException
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from devicehub.api.problems import Problem
from devicehub.messages.json_limits import fault_as_json

MAX_BODY = 1 << 20  # bytes of a JSON body
MAX_DEPTH = 64  # levels of a JSON body; far fewer than a recursive function can follow


def read(stream: Any, most: int) -> bytes:
    """Return the body in *stream*, at most *most* bytes. Raise Problem `too-large` beyond it; the rest is dropped."""
    try:
        body: bytes = stream.read(most + 1)
        if len(body) <= most:
            return body
        while stream.read(1 << 16):
            pass
    except (OSError, RawPostDataException) as error:
        raise ParseError("The body did not arrive as a whole.") from error
    raise Problem("too-large", f"The body has more than {most:,} bytes.")


class JsonParser(BaseParser):
    """A parser of JSON bodies up to MAX_BODY. It refuses what no database keeps: NaN, NUL, half surrogate pairs."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        """Return the values in the body. Raise ParseError, Problem."""
        body = read(stream, MAX_BODY)
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ParseError(f"The body is not JSON: {error}.") from error
        if _is_deeper(found, MAX_DEPTH):
            raise ParseError(f"The body has more than {MAX_DEPTH} levels of arrays and objects.")
        if fault := fault_as_json(found):
            raise ParseError(f"The body {fault}.")
        return found


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether *value* has more than so many *levels* of arrays and objects, without a call for each."""
    inner = [value]
    for _ in range(levels + 1):
        inner = [
            found
            for one in inner
            if isinstance(one, list | dict)
            for found in (one.values() if isinstance(one, dict) else one)
        ]
        if not inner:
            return False
    return True


class JsonRenderer(BaseRenderer):
    """A renderer of JSON in UTF-8. Times become RFC 3339 in UTC; integers keep all their digits."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return *data* as bytes; nothing for an answer without a body."""
        if data is None:
            return b""
        return dumps(data)


def dumps(data: Any) -> bytes:
    """Return *data* as JSON. NaN and infinite numbers become null, which is all that JSON has for them."""
    options = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
    try:
        return orjson.dumps(data, default=_plain, option=options)
    except (TypeError, orjson.JSONEncodeError):  # An integer beyond 64 bits, or half a surrogate pair.
        return json.dumps(data, default=_plain, separators=(",", ":")).encode()


def loads(text: bytes) -> Any:
    """Return the values in JSON that dumps() wrote."""
    return orjson.loads(text)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, bytes | memoryview):
        raise TypeError("bytes have no form in JSON")
    return str(value)


def moment(value: datetime) -> str:
    """Return *value* as RFC 3339 in UTC.

    >>> moment(datetime(2026, 12, 1, 6, 3, 41, tzinfo=UTC))
    '2026-12-01T06:03:41Z'
    """
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
