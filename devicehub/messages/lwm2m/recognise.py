"""Which content format of LwM2M a payload has: by its content type and path, or else by its first byte. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from devicehub.messages import decode
from devicehub.messages.lwm2m import paths, tlv
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.formats import FORMATS, NAMES, Format
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.values import DataType, TypeOf, Value, typed
from devicehub.messages.message import FailureReason, Notes, Unreadable

# Beyond every time of 64 bits: a time above half of it counts from the receipt, and is not the payload's own.
NOW = 2**65
OWN = NOW // 2
# Media types that programs set without thinking; the payload itself shows its format.
VAGUE = frozenset({"", "application/json", "application/cbor", "application/octet-stream", "text/plain"})
SPACE = b" \t\r\n"


class Recognised(NamedTuple):
    """The name of a format, its codec, and the path that the payload answers for."""

    name: str
    form: Format
    base: Path


@lru_cache(maxsize=256)
def split(content_type: str) -> tuple[str, str]:
    """Return the media type of *content_type* and its parameter `path`, or "".

    >>> split('application/vnd.oma.lwm2m+TLV; path="/3303/0"')
    ('application/vnd.oma.lwm2m+tlv', '/3303/0')
    """
    media_type, *parameters = content_type.split(";")
    path = ""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "path":
            path = value.strip().strip('"')
    return media_type.strip().lower(), path


def recognise(payload: bytes, media_type: str, path: str) -> Recognised:
    """Return the format of a payload that answers for *path*, which may be "". Raise Unreadable."""
    try:
        base = paths.parse(path or "/")
    except ValueError as error:
        raise Unreadable(FailureReason.NOT_A_READING, f"the path of the payload: {error}") from error
    name = NAMES.get(media_type)
    if name is None and media_type not in VAGUE:
        raise Unreadable(
            FailureReason.NOT_A_READING,
            f"{media_type[:80]!r} is not a content format of LwM2M: {', '.join(NAMES)}",
        )
    if name is None or (media_type in VAGUE and not paths.holds_value(base)):
        name = _by_first_byte(payload, base)
    return Recognised(name, FORMATS[name], base)


def _by_first_byte(payload: bytes, base: Path) -> str:
    start = payload.lstrip(SPACE)[:1]
    if start == b"[":
        return "senml+json"
    if start == b"{":
        return "lwm2m+json"
    first = payload[0] if payload else 0
    if base and not (0x80 <= first <= 0xBF and _is_cbor(payload)):
        return "tlv"
    if 0x80 <= first <= 0x9F:
        return "senml+cbor"
    if 0xA0 <= first <= 0xBF:
        return "lwm2m+cbor"
    raise Unreadable(
        FailureReason.NOT_A_READING,
        "is not SenML, LwM2M JSON or LwM2M CBOR; a payload of another format needs its content type and its path",
    )


def _is_cbor(payload: bytes) -> bool:
    """Return whether a payload whose first byte allows CBOR and TLV is CBOR: TLV fills its length exactly."""
    try:
        tlv.decode(payload, (0, 0), lambda _object, _resource: None)
    except CodecError:
        return True
    return False


def values(payload: bytes, found: Recognised, type_of: TypeOf, notes: Notes) -> list[Value]:
    """Return the values in *payload*. Raise Unreadable.

    A value that contradicts the type of its resource is kept as it was sent, with a note.
    """
    name, form, base = found
    try:
        return form.decode(payload, base, type_of, NOW)
    except CodecError as error:
        first = error
    try:
        raw = form.decode(payload, base, lambda _object, _resource: None, NOW)
    except CodecError:
        raise Unreadable(FailureReason.NOT_A_READING, f"{name}: {first}") from first
    return [_as_declared(value, type_of(value.path[0], value.path[2]), name, notes) for value in raw]


def _as_declared(value: Value, declared: DataType | None, form: str, notes: Notes) -> Value:
    """Return *value*, read without a type, with the type of its resource, or as it is with a note."""
    if declared is None:
        return value
    try:
        if form == "tlv":
            kind, held = tlv.read_value(value.value, declared)
        else:
            kind, held = typed(value.value, declared)
    except (ValueError, ArithmeticError) as error:
        notes.append(
            f"{paths.write(value.path)}: is not of type {declared}, and kept as it was sent: {error}"
        )
        return value
    return value._replace(type=kind, value=held)


def is_own(time: Any) -> bool:
    """Return whether *time*, of a value, is one that the payload names itself: it does not count from the receipt."""
    return bool(time is not None and time < OWN)


def moment(time: Any, received: datetime, notes: Notes) -> datetime | None:
    """Return the time of a value; None for the time of receipt, with a note if another one cannot be used."""
    if time is None or is_own(time):
        return None if time is None else decode.parse_seconds(time, received, notes)
    try:
        since = (received + timedelta(seconds=float(time - NOW))).timestamp()
    except OverflowError:
        notes.append("timestamp: cannot be read, the time of receipt was used")
        return None
    return decode.parse_seconds(since, received, notes)
