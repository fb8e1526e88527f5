"""The LwM2M codecs of `script/bench lwm2m`: records per second of each content format, decoded and encoded."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from typing import Any

from devicehub.lwm2m import leshan_nodes, link_format
from devicehub.messages.lwm2m.formats import FORMATS
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.recognise import NOW
from devicehub.messages.lwm2m.values import DataType, TypeOf, Value

INSTANCES = 25  # of each resource below, in one payload
TYPES = {5700: DataType.FLOAT, 5701: DataType.STRING, 5605: DataType.BOOLEAN, 5518: DataType.TIME}
HELD: dict[int, Any] = {5700: 21.37, 5701: "Cel", 5605: True, 5518: 1_764_550_000}
# Formats of one value; their payload is one record.
SINGLE = {
    "text": (DataType.FLOAT, 21.37),
    "opaque": (DataType.OPAQUE, b"\x00\xff" * 4),
    "cbor": (DataType.FLOAT, 21.37),
}
ENOUGH = 0.05  # seconds of one of the repetitions, of which the fastest counts
REPETITIONS = 5
LINKS = ",".join(f"</3303/{number}>;ver=1.1" for number in range(100))


def measure() -> list[dict[str, Any]]:
    """Return the records per second of each codec."""
    values = [
        Value((3303, instance, resource), kind, HELD[resource])
        for instance in range(INSTANCES)
        for resource, kind in TYPES.items()
    ]
    rows = []
    for name, form in FORMATS.items():
        given, type_of = values, _type_of(TYPES)
        base: Path = (3303,)
        if name in SINGLE:
            kind, held = SINGLE[name]
            given, base, type_of = [Value((3303, 0, 1), kind, held)], (3303, 0, 1), _type_of({1: kind})
        payload = form.encode(given, base)
        rows.append(
            {
                "codec": name,
                "records": len(given),
                "decoded": _rate(len(given), lambda: form.decode(payload, base, type_of, NOW)),  # noqa: B023
                "encoded": _rate(len(given), lambda: form.encode(given, base)),  # noqa: B023
            }
        )
    links = link_format.parse(LINKS)
    rows.append(
        {
            "codec": "link format",
            "records": len(links),
            "decoded": _rate(len(links), lambda: link_format.parse(LINKS)),
            "encoded": _rate(len(links), lambda: link_format.write(links)),
        }
    )
    nodes = json.loads(json.dumps(_nodes()))
    rows.append(
        {
            "codec": "nodes of Leshan",
            "records": INSTANCES,
            "decoded": _rate(INSTANCES, lambda: leshan_nodes.decode_composite(nodes, _type_of(TYPES))),
        }
    )
    return rows


def _type_of(types: dict[int, DataType]) -> TypeOf:
    return lambda _object, resource: types.get(resource)


def _nodes() -> dict[str, Any]:
    return {
        f"/3303/{instance}/5700": {"kind": "singleResource", "id": 5700, "type": "FLOAT", "value": "21.37"}
        for instance in range(INSTANCES)
    }


def _rate(records: int, run: Callable[[], object]) -> int:
    """Return how many records *run* handles in a second, by the fastest of REPETITIONS."""
    run()
    timer = timeit.Timer(run)
    once = min(timer.repeat(3, 1))
    number = max(1, int(ENOUGH / once))
    return round(records * number / min(timer.repeat(REPETITIONS, number)))
