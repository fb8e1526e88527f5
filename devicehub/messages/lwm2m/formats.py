"""The content formats of LwM2M, each with its codec. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

from devicehub.messages.lwm2m import lwm2m_cbor, lwm2m_json, senml, text_opaque, tlv
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.values import TypeOf, Value


class Decode(Protocol):
    """Return the values of a payload that answers for *base*. Raise CodecError."""

    def __call__(
        self, payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0
    ) -> list[Value]: ...


class Encode(Protocol):
    """Return values as a payload that answers for *base*. Raise CodecError."""

    def __call__(self, values: Sequence[Value], base: Path) -> bytes: ...


class Format(NamedTuple):
    """A content format: its media type and its codec."""

    media_type: str
    decode: Decode
    encode: Encode


FORMATS: dict[str, Format] = {
    "senml+json": Format("application/senml+json", senml.decode_json, senml.encode_json),
    "senml+cbor": Format("application/senml+cbor", senml.decode_cbor, senml.encode_cbor),
    "lwm2m+json": Format("application/vnd.oma.lwm2m+json", lwm2m_json.decode, lwm2m_json.encode),
    "lwm2m+cbor": Format("application/vnd.oma.lwm2m+cbor", lwm2m_cbor.decode, lwm2m_cbor.encode),
    "tlv": Format("application/vnd.oma.lwm2m+tlv", tlv.decode, tlv.encode),
    "text": Format("text/plain", text_opaque.decode_text, text_opaque.encode_text),
    "opaque": Format("application/octet-stream", text_opaque.decode_opaque, text_opaque.encode_opaque),
    "cbor": Format("application/cbor", lwm2m_cbor.decode_one, lwm2m_cbor.encode_one),
}
NAMES = {form.media_type: name for name, form in FORMATS.items()}  # by media type
