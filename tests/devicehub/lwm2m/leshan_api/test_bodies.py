"""The bodies of the bridge of flownexus, in both shapes, as messages."""

import json
from decimal import Decimal

import pytest

from devicehub.lwm2m.leshan_api.bodies import UnreadableBody, read, read_composite, read_single
from devicehub.messages.lwm2m import exact_json

EP = "urn:imei:100000000000000"


def resource(number=5700, kind="FLOAT", value="24.5", **more):
    return {"kind": "singleResource", "id": number, "type": kind, "value": value, **more}


INSTANCE = {"kind": "instance", "id": 1, "resources": [resource()]}
OBJECT = {"kind": "obj", "id": 3303, "instances": [INSTANCE]}


def single(value, object_id=3303, **more):
    return json.dumps({"ep": EP, "obj_id": object_id, "val": value, **more}).encode()


def values(posted):
    assert (posted.endpoint, posted.message_type) == (EP, "data")
    assert posted.content_type == "application/vnd.devicehub.leshan+json"
    content = exact_json.load(posted.payload)
    assert content["event"] == "notification"
    return content["values"]


@pytest.mark.parametrize(
    ("node", "path"),
    [
        (resource(), "/3303/0/5700"),
        ({"kind": "multiResource", "id": 7, "type": "INTEGER", "values": {"0": "1"}}, "/3303/0/7"),
        (INSTANCE, "/3303/1"),
        (OBJECT, "/3303"),
        ({"kind": "root", "objects": [OBJECT]}, "/"),
        ({"id": 5700, "value": 24.5}, "/3303/0/5700"),
        ({"id": 7, "values": {"0": "1"}}, "/3303/0/7"),
        ({"id": 1, "resources": []}, "/3303/1"),
        ({"instances": []}, "/3303"),
    ],
)
def test_a_single_node_has_its_path(node, path):
    """Without the object instance, which this shape does not name, it is that of instance 0."""
    assert values(read_single(single(node))) == {path: exact_json.load(json.dumps(node).encode())}


def test_a_root_needs_no_object():
    body = json.dumps({"ep": EP, "val": {"kind": "root", "objects": []}}).encode()

    assert set(values(read_single(body))) == {"/"}


@pytest.mark.parametrize("nodes", [{"/3": OBJECT, "/3303/0/5700": resource()}, OBJECT, {"/3": None}, {}])
def test_a_composite_is_a_map_of_nodes_or_one_node(nodes):
    assert values(read_composite(json.dumps({"ep": EP, "val": nodes}).encode())) == nodes


def test_a_number_keeps_its_digits():
    body = b'{"ep":"' + EP.encode() + b'","val":{"/9/0/1":{"id":1,"value":0.12345678901234567890123}}}'

    assert values(read_composite(body))["/9/0/1"]["value"] == Decimal("0.12345678901234567890123")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, {"registration": {"at": 1795933949432, "lifetime": None}}),
        (1, {"deregistration": {"at": 1795933949432}}),
        (2, {"update": {"at": 1795933949432}}),
    ],
)
def test_object_10240_is_about_registrations(number, expected):
    posted = read_single(single(resource(number, "TIME", 1795933949432), 10240))

    assert (posted.endpoint, posted.message_type, posted.content_type) == (EP, "status", "application/json")
    assert json.loads(posted.payload) == expected


DEEP = b'{"ep":"a","obj_id":1,"val":{"id":1,"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"ep":"a","ep":"b"}', "twice"),
        (b'{"ep":"a","val":NaN}', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (DEEP, "too deep"),
        (b"{}", "ep is not"),
        (b'{"ep":""}', "ep is not"),
        (b'{"ep":7}', "ep is not"),
        (b'{"ep":"a\\u0000"}', "ep is not"),
        (b'{"ep":"a\\ud800"}', "ep is not"),
        (json.dumps({"ep": "x" * 256}).encode(), "ep is not"),
        (b'{"ep":"a"}', "val is not a node"),
        (single(None), "val is not a node"),
        (single([]), "val is not a node"),
        (single(resource(), None), "obj_id is not"),
        (single(resource(), "3303"), "obj_id is not"),
        (single(resource(), True), "obj_id is not"),
        (single(resource(), 65535), "obj_id is not"),
        (single(resource(-1)), "the id of the node is not"),
        (single(resource("5700")), "the id of the node is not"),
        (single({"kind": "instance"}), "the id of the node is not"),
        (single({"kind": "resourceInstance", "id": 0}), "does not name its resource"),
        (single({"kind": "bunch"}), "not a kind of node"),
        (single({"kind": ["obj"]}), "not a kind of node"),
        (single(resource(3, "TIME", 1), 10240), "are 0, 1 and 2"),
        (single(resource(0, "TIME", "now"), 10240), "not the date"),
        (single(resource(0, "TIME", -1), 10240), "not the date"),
        (single(resource(0, "TIME", 10**18), 10240), "not the date"),
        (single(resource(0, "TIME", None), 10240), "not the date"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_a_reason(body, said):
    with pytest.raises(UnreadableBody, match=said):
        read_single(body)


@pytest.mark.parametrize("value", [None, [], 7, "x"])
def test_a_composite_without_nodes_is_refused(value):
    with pytest.raises(UnreadableBody, match="neither a node nor a map"):
        read_composite(json.dumps({"ep": EP, "val": value}).encode())


ENDS = {"kind": "obj", "id": 10240, "instances": [{**INSTANCE, "resources": [resource(1, "TIME", 1)]}]}


@pytest.mark.parametrize(
    ("shape", "nodes"),
    [
        ("composite", {"/10240/0/0": resource(0, "TIME", 1)}),
        ("composite", {"/10240": ENDS}),
        ("composite", ENDS),
        ("composite", {"/": {"kind": "root", "objects": [OBJECT, ENDS]}}),
        ("single", {"kind": "root", "objects": [ENDS]}),
    ],
)
def test_registrations_are_no_object_at_any_place(shape, nodes):
    with pytest.raises(UnreadableBody, match="10240 is not an object"):
        read(shape, json.dumps({"ep": EP, "val": nodes}).encode())


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({"/3": {"kind": "obj", "id": 4, "instances": []}}, "/3: the node has another id"),
        ({"3303": resource()}, "'3303' is not a path"),
        ({"/3303/0": resource()}, "is not a path of a node of kind singleResource"),
        ({"/3": None}, "the body holds no value"),
        ({}, "the body holds no value"),
        ({"/3303/0/5700": resource(value="warm")}, "/3303/0/5700: 'warm'"),
    ],
)
def test_nodes_without_any_value_are_refused(nodes, said):
    with pytest.raises(UnreadableBody, match=said):
        read("composite", json.dumps({"ep": EP, "val": nodes}).encode())


def test_one_value_is_enough():
    nodes = {"/3303/0/5700": resource(value="warm"), "/3304/0/5700": resource()}

    assert read("composite", json.dumps({"ep": EP, "val": nodes}).encode()).endpoint == EP
