"""The bodies that the bridge of flownexus posts, as messages of endpoints.

    {"ep": "urn:imei:1", "obj_id": 3303, "val": {"kind": "singleResource", "id": 5700, ...}}    to /single
    {"ep": "urn:imei:1", "val": {"/3": {"kind": "obj", "id": 3, "instances": [...]}}}           to /composite

The former names no object instance, which is then 0. Object 10240, which no registry has, stands for registrations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from devicehub.errors import DevicehubError
from devicehub.kinds.topics import MessageType
from devicehub.lwm2m import leshan_nodes
from devicehub.lwm2m.leshan.reports import JSON
from devicehub.lwm2m.leshan_nodes import INNER, LEVELS, MEDIA_TYPE
from devicehub.lwm2m.names import is_endpoint_name
from devicehub.messages.lwm2m import exact_json, paths
from devicehub.messages.lwm2m.errors import CodecError

REGISTRATIONS = 10240
# By the resource of that object. The value of each is the date of the registration; its lifetime is not told.
WORDS = {0: "registration", 1: "deregistration", 2: "update"}
LAST_DATE = 253_402_300_799_999  # The last millisecond of the year 9999.


class UnreadableBody(DevicehubError, ValueError):
    """A body cannot become a message; the text says why."""


class Posted(NamedTuple):
    """A message of *endpoint*, without its topic."""

    endpoint: str
    message_type: MessageType
    payload: bytes
    content_type: str


def read_single(body: bytes) -> Posted:
    """Return the message in the body of a single observation, or of a registration. Raise UnreadableBody."""
    content, endpoint = _content(body)
    node = content.get("val")
    if not isinstance(node, Mapping):
        raise UnreadableBody("val is not a node")
    kind = _kind(node)
    if kind == "root":
        return _values(endpoint, {"/": node})
    object_id = _number(content.get("obj_id"), "obj_id")
    if object_id == REGISTRATIONS:
        return _registration(endpoint, node)
    if kind == "obj":
        path: tuple[int, ...] = (object_id,)
    elif kind == "instance":
        path = (object_id, _number(node.get("id"), "the id of the node"))
    elif kind == "resourceInstance":
        raise UnreadableBody("a resource instance alone does not name its resource")
    else:
        path = (object_id, 0, _number(node.get("id"), "the id of the node"))
    return _values(endpoint, {paths.write(path): node})


def read_composite(body: bytes) -> Posted:
    """Return the message in the body of a composite observation: a map of path to node, or one node.

    Raise UnreadableBody.
    """
    content, endpoint = _content(body)
    nodes = content.get("val")
    if not isinstance(nodes, Mapping):
        raise UnreadableBody("val is neither a node nor a map of nodes")
    return _values(endpoint, nodes)


def read(shape: str, body: bytes) -> Posted:
    """Return the message in a body of *shape*, `single` or `composite`. Raise UnreadableBody, also without a value."""
    posted = READERS[shape](body)
    if posted.message_type is MessageType.DATA:
        _check_values(posted.payload)
    return posted


def _check_values(payload: bytes) -> None:
    """Raise UnreadableBody unless *payload* holds nodes with a value. Their types, which are not known here, follow."""
    notes: list[str] = []
    try:
        nodes = exact_json.load(payload)["values"]
        values = leshan_nodes.decode_composite(nodes, lambda _object, _resource: None, notes.append)
    except CodecError as error:
        raise UnreadableBody(str(error)) from error
    if any(value.path[0] == REGISTRATIONS for value in values):
        raise UnreadableBody(
            f"{REGISTRATIONS} is not an object; its resources are posted to /single, one by one"
        )
    if not values:
        raise UnreadableBody("; ".join(notes)[:400] or "the body holds no value")


READERS: Mapping[str, Callable[[bytes], Posted]] = {"single": read_single, "composite": read_composite}


def _content(body: bytes) -> tuple[Mapping[str, Any], str]:
    try:
        content = exact_json.load(body)
    except CodecError as error:
        raise UnreadableBody(str(error)) from error
    if not isinstance(content, Mapping):
        raise UnreadableBody("the body is not a JSON object")
    endpoint = content.get("ep")
    if not isinstance(endpoint, str) or not is_endpoint_name(endpoint):
        raise UnreadableBody("ep is not an endpoint name of 1-255 characters")
    return content, endpoint


def _kind(node: Mapping[str, Any]) -> str:
    kind = node.get("kind")
    if kind is None:
        return next((kind for kind, inner in INNER.items() if inner in node), "singleResource")
    if not isinstance(kind, str) or kind not in LEVELS:
        raise UnreadableBody(f"{str(kind)[:40]!r} is not a kind of node")
    return kind


def _number(found: Any, name: str) -> int:
    if type(found) is not int or not 0 <= found <= paths.MAX_ID:
        raise UnreadableBody(f"{name} is not a number from 0 to {paths.MAX_ID}")
    return found


def _registration(endpoint: str, node: Mapping[str, Any]) -> Posted:
    word, date = WORDS.get(_number(node.get("id"), "the id of the node")), node.get("value")
    if word is None:
        raise UnreadableBody(f"the resources of {REGISTRATIONS} are 0, 1 and 2")
    if type(date) is not int or not 0 < date <= LAST_DATE:
        raise UnreadableBody("the value is not the date of a registration in milliseconds")
    members: dict[str, Any] = {"at": date}
    if word == "registration":
        members["lifetime"] = None
    return Posted(endpoint, MessageType.STATUS, json.dumps({word: members}).encode(), JSON)


def _values(endpoint: str, nodes: Mapping[str, Any]) -> Posted:
    try:
        payload = _written({"event": "notification", "values": nodes}).encode()
    except (RecursionError, UnicodeEncodeError) as error:
        raise UnreadableBody("val is nested too deep, or holds half a surrogate pair") from error
    return Posted(endpoint, MessageType.DATA, payload, MEDIA_TYPE)


def _written(value: Any) -> str:
    """Return *value* as JSON; numbers keep all their digits."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(held)}" for name, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)
