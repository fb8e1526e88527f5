"""Payloads of LwM2M in tests: decoded by the name of their format, and shown as lwm2m-vectors.json shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from devicehub.messages.lwm2m import paths, senml
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.formats import FORMATS
from devicehub.messages.lwm2m.values import DataType, TypeOf, Value
from rig.serving import ROOT

VECTORS = ROOT / "tests/devicehub/messages/lwm2m/lwm2m-vectors.json"
NAMES = {"senml+json": senml.decode_names_json, "senml+cbor": senml.decode_names_cbor}
RECEIVED_AT = 10**12  # The time of receipt, far from all others; "now-5" in a vector is 5 seconds earlier.
ERROR = "error"


def vectors() -> list[dict[str, Any]]:
    """Return the published and recorded payloads."""
    found: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]
    return found


def given(types: Mapping[str, str]) -> TypeOf:
    """Return the function that answers with types by object and resource, such as {"3303/5700": "Float"}."""
    known = {paths.parse(f"/{name}"): DataType(kind) for name, kind in types.items()}
    return lambda object_id, resource_id: known.get((object_id, resource_id))


def types_in(rows: Any) -> dict[str, str]:
    """Return the types of the resources that the rows of a vector name."""
    if rows == ERROR:
        return {}
    ids = [(row[0].split("/"), row[1]) for row in rows if row[0].startswith("/")]
    return {f"{path[1]}/{path[3]}": kind for path, kind in ids}


def decoded(form: str, payload: bytes | str, base: str = "/", types: Mapping[str, str] | None = None) -> Any:
    """Return the rows that a payload has, or "error". Without a base, names are not paths."""
    data = payload.encode() if isinstance(payload, str) else payload
    try:
        if not base:
            named = NAMES[form](data, RECEIVED_AT)
            return [_row(r.name, senml.PLAIN_TYPES[r.label], r.value, r.time) for r in named]
        return shown(FORMATS[form].decode(data, paths.parse(base), given(types or {}), RECEIVED_AT))
    except CodecError as error:
        return ERROR if error.position and "\n" not in str(error) else str(error)


def exact(rows: Any) -> Any:
    """Return *rows*, or what holds them, in a form that tells 1 from 1.0 and from True, and 0.0 from -0.0."""
    if isinstance(rows, Mapping):
        return {name: repr(held) for name, held in rows.items()}
    return list(map(repr, rows))


def shown(values: Iterable[Value]) -> list[list[Any]]:
    """Return *values* as rows of a vector, with floats and decimals as they are."""
    return [_row(paths.write(path), kind, held, time) for path, kind, held, time in values]


def _row(path: str, kind: str, held: Any, time: Any) -> list[Any]:
    if isinstance(held, bytes):
        held = held.hex()
    elif isinstance(held, tuple) or (isinstance(held, int) and abs(held) > 2**53):
        held = str(held)
    return [path, str(kind), held] if time is None else [path, str(kind), held, _time(time)]


def _time(time: Any) -> Any:
    offset = time - RECEIVED_AT
    return time if abs(offset) > 2**28 else f"now{offset:+}"
