"""The values in a `data` payload of an endpoint: every content format of LwM2M, and the nodes of a Leshan server."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.utils.http import parse_header_parameters

from devicehub.lwm2m import leshan_nodes
from devicehub.lwm2m.models.events import NOTIFICATION, SEND
from devicehub.messages.lwm2m import exact_json, paths, tlv
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.formats import BY_MEDIA_TYPE, FORMATS, Format
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.values import DataType, TypeOf, Value, typed
from devicehub.messages.message import FailureReason, Message, Notes, Unreadable

LESHAN = "application/vnd.devicehub.leshan+json"
# Beyond every time of 64 bits: a time above half of it counts from the receipt, and is not the payload's own.
NOW = 2**65
SINGLE = frozenset({"text", "opaque", "cbor"})  # Formats that hold one value, whose path must be given.
EVENTS = {"notification": NOTIFICATION, "read": NOTIFICATION, "send": SEND}
# Media types that programs set without thinking; the payload itself shows its format.
VAGUE = frozenset({"", "application/json", "application/cbor", "application/octet-stream", "text/plain"})
SPACE = b" \t\r\n"


@dataclass
class Found:
    """The values of a payload, each with its path; *event* is the type of the event that they make."""

    event: str
    values: list[Value]
    notes: Notes = field(default_factory=Notes)


def read(message: Message, type_of: TypeOf) -> Found:
    """Return the values in *message*. Raise Unreadable.

    A value that contradicts the type of its resource is kept as it was sent, with a note.
    """
    media_type, parameters = parse_header_parameters(message.content_type)
    properties = dict(message.user_properties)
    if media_type == LESHAN:
        return _read_nodes(message.payload, type_of)
    base = _base(properties.get("path") or parameters.get("path") or "")
    name, form = _format(message.payload, media_type, base)
    event = EVENTS.get(properties.get("event", ""), NOTIFICATION)
    try:
        return Found(event, form.decode(message.payload, base, type_of, NOW))
    except CodecError as error:
        first = error
    try:
        raw = form.decode(message.payload, base, lambda _object, _resource: None, NOW)
    except CodecError:
        raise Unreadable(FailureReason.NOT_A_READING, f"{name}: {first}") from first
    found = Found(event, [])
    for value in raw:
        found.values.append(_as_declared(value, type_of(value.path[0], value.path[2]), name, found.notes))
    return found


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


def _base(text: str) -> Path:
    try:
        return paths.parse(text or "/")
    except ValueError as error:
        raise Unreadable(FailureReason.NOT_A_READING, f"the path of the payload: {error}") from error


def _format(payload: bytes, media_type: str, base: Path) -> tuple[str, Format]:
    """Return the format of a payload by its media type, or else by its first byte. Raise Unreadable."""
    form = BY_MEDIA_TYPE.get(media_type)
    if form is not None and (media_type not in VAGUE or paths.holds_value(base)):
        return next(name for name, one in FORMATS.items() if one is form), form
    if form is None and media_type not in VAGUE:
        raise Unreadable(
            FailureReason.NOT_A_READING,
            f"{media_type[:80]!r} is not a content format of LwM2M: {', '.join(BY_MEDIA_TYPE)}",
        )
    name = _recognised(payload, base)
    return name, FORMATS[name]


def _recognised(payload: bytes, base: Path) -> str:
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


def _read_nodes(payload: bytes, type_of: TypeOf) -> Found:
    try:
        content = exact_json.load(payload)
        nodes = content.get("values") if isinstance(content, dict) else None
        values = leshan_nodes.decode_composite(nodes, type_of)
    except CodecError as error:
        raise Unreadable(FailureReason.NOT_A_READING, f"Leshan: {error}") from error
    return Found(EVENTS.get(str(content.get("event")), NOTIFICATION), values)
