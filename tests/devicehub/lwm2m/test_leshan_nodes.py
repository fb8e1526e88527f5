"""The JSON of a Leshan server, as three of its versions send it."""

from decimal import Decimal

import pytest

from devicehub.lwm2m import leshan_nodes
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.values import DataType
from rig.lwm2m import ERROR, exact, given, shown

pytestmark = pytest.mark.sqlite_only

TYPES = {
    "3/0": "String",
    "3/7": "Integer",
    "3/13": "Time",
    "3303/5700": "Float",
    "3303/5701": "String",
    "3442/140": "Boolean",
    "3442/150": "Opaque",
    "3442/170": "Objlnk",
}


def single(kind, value, number=1):
    return {"kind": "singleResource", "id": number, "type": kind, "value": value}


# One resource of each type, as versions 2.0.0-M15 and later send it.
VALUES = [
    ("STRING", "initial value", "String", "initial value"),
    ("INTEGER", "1024", "Integer", 1024),
    ("INTEGER", "-9223372036854775808", "Integer", "-9223372036854775808"),
    ("INTEGER", 5, "Integer", 5),
    ("UNSIGNED_INTEGER", "18446744073709551615", "Unsigned Integer", "18446744073709551615"),
    ("FLOAT", "3.14159", "Float", 3.14159),
    ("FLOAT", "1.0E-5", "Float", 1e-05),
    ("FLOAT", "-0.0", "Float", -0.0),
    ("FLOAT", 1.5, "Float", 1.5),
    ("BOOLEAN", True, "Boolean", True),
    ("OPAQUE", "0123456789abcdef", "Opaque", "0123456789abcdef"),
    ("OPAQUE", "", "Opaque", ""),
    ("TIME", 946684800000, "Time", 946684800),
    ("TIME", 946684800123, "Time", Decimal("946684800.123")),
    ("TIME", "946684800000", "Time", 946684800),
    ("OBJLNK", {"objectId": 3, "objectInstanceId": 0, "nullLink": False}, "Objlnk", "3:0"),
    ("OBJLNK", {"objectId": 65535, "objectInstanceId": 65535, "nullLink": True}, "Objlnk", "65535:65535"),
    ("CORELINK", "</3442>", "Corelnk", "</3442>"),
]
NO_VALUES = [
    *(("FLOAT", "NaN"), ("FLOAT", "Infinity"), ("INTEGER", "1.5"), ("INTEGER", "9223372036854775808")),
    *(("INTEGER", True), ("UNSIGNED_INTEGER", "-1"), ("BOOLEAN", "true"), ("BOOLEAN", 1), ("STRING", 1)),
    *(("OPAQUE", "xy"), ("OPAQUE", "0"), ("OPAQUE", "00 11"), ("OPAQUE", 1), ("TIME", True), ("TIME", 1.5)),
    *(("TIME", "x"), ("OBJLNK", {}), ("OBJLNK", {"objectId": 65536, "objectInstanceId": 0}), ("OBJLNK", "3")),
    *(("STRING", ["x"]), ("DOUBLE", "1"), (5, "1"), ("STRING", "\ud800")),
    *((["STRING"], "x"), ({}, "x"), ("OBJLNK", {"objectId": True, "objectInstanceId": 0})),
]


def decoded(node, path=None, types=TYPES):
    try:
        place = None if path is None else paths.parse(path)
        return shown(leshan_nodes.decode(node, place, given(types)))
    except CodecError:
        return ERROR


def test_values_of_every_type():
    found = [decoded(single(kind, raw), "/9/0/1") for kind, raw, _, _ in VALUES]

    assert exact(found) == exact([[["/9/0/1", kind, value]] for _, _, kind, value in VALUES])


def test_values_that_are_not_of_their_type_are_refused():
    found = {repr(row): decoded(single(*row), "/9/0/1") for row in NO_VALUES}

    assert set(found.values()) == {ERROR}, found


DEVICE = {
    "kind": "instance",
    "id": 0,
    "resources": [
        single("STRING", "Zephyr", 0),
        {"kind": "multiResource", "id": 7, "type": "INTEGER", "values": {"0": "3800", "5": "5000"}},
        single("TIME", 1700000000000, 13),
        {"kind": "multiResource", "id": 4, "type": "STRING", "values": {}},
        {"kind": "singleResource", "id": 5, "type": "NONE", "value": None},
    ],
}
ROWS = [
    ["/3/0/0", "String", "Zephyr"],
    ["/3/0/7/0", "Integer", 3800],
    ["/3/0/7/5", "Integer", 5000],
    ["/3/0/13", "Time", 1700000000],
]


def test_nodes_of_every_kind():
    device = {"instances": [DEVICE], "kind": "obj", "id": 3}
    battery = {"kind": "resourceInstance", "id": 5, "type": "INTEGER", "value": "5000"}

    assert decoded(DEVICE, "/3/0") == ROWS
    assert decoded(device, "/3") == ROWS
    assert decoded(device) == ROWS
    assert decoded({"kind": "root", "objects": [device]}, "/") == ROWS
    assert decoded({"kind": "root", "objects": [device]}) == ROWS
    assert decoded(DEVICE["resources"][1], "/3/0/7") == ROWS[1:3]
    assert decoded(battery, "/3/0/7/5") == ROWS[2:3]
    assert decoded(None, "/3/0/7/5") == []


def test_bytes_of_an_object_that_leshan_does_not_know_are_read_with_our_types():
    assert decoded(single("OPAQUE", "4038800000000000", 5700), "/3303/0/5700") == [
        ["/3303/0/5700", "Float", 24.5]
    ]
    assert decoded(single("OPAQUE", "63656c", 5701), "/3303/0/5701") == [["/3303/0/5701", "String", "cel"]]
    # Bytes that are not of the type are kept, as are those of an unknown resource.
    assert decoded(single("OPAQUE", "4038", 5700), "/3303/0/5700") == [["/3303/0/5700", "Opaque", "4038"]]
    assert decoded(single("OPAQUE", "4038", 1), "/9/0/1") == [["/9/0/1", "Opaque", "4038"]]


def test_a_value_of_another_type_than_ours_is_kept_as_leshan_names_it():
    assert decoded(single("INTEGER", "20", 5700), "/3303/0/5700") == [["/3303/0/5700", "Float", 20.0]]
    assert decoded(single("STRING", "warm", 5700), "/3303/0/5700") == [["/3303/0/5700", "String", "warm"]]


# Version 2.0.0-M4 names neither kind nor type.
UNTYPED = [
    ({"id": 5700, "value": 30.0}, "/3303/0/5700", [["/3303/0/5700", "Float", 30.0]]),
    ({"id": 5700, "value": 30}, "/3303/0/5700", [["/3303/0/5700", "Float", 30.0]]),
    ({"id": 5700, "value": "4038800000000000"}, "/3303/0/5700", [["/3303/0/5700", "Float", 24.5]]),
    ({"id": 5700, "value": "warm"}, "/3303/0/5700", [["/3303/0/5700", "String", "warm"]]),
    ({"id": 3, "value": "322e302e30"}, "/9/0/3", [["/9/0/3", "String", "322e302e30"]]),
    ({"id": 3, "value": 5}, "/9/0/3", [["/9/0/3", "Integer", 5]]),
    ({"id": 3, "value": Decimal("24.5")}, "/9/0/3", [["/9/0/3", "Float", 24.5]]),
    ({"id": 11, "value": Decimal("1.5")}, "/3/0/11", [["/3/0/11", "Float", 1.5]]),
    ({"id": 13, "value": "2026-11-29T06:24:54Z"}, "/3/0/13", [["/3/0/13", "Time", 1795933494]]),
    ({"id": 13, "value": "5182428f"}, "/3/0/13", [["/3/0/13", "Time", 1367491215]]),
    ({"id": 140, "value": True}, "/3442/0/140", [["/3442/0/140", "Boolean", True]]),
    ({"id": 150, "value": "0123"}, "/3442/0/150", [["/3442/0/150", "Opaque", "0123"]]),
    (
        {"id": 170, "value": {"objectId": 3, "objectInstanceId": 0}},
        "/3442/0/170",
        [["/3442/0/170", "Objlnk", "3:0"]],
    ),
    ({"id": 7, "values": {"0": 3800}}, "/3/0/7", [["/3/0/7/0", "Integer", 3800]]),
    ({"id": 0}, "/3/0/7/0", []),
    ({"id": 0, "resources": [{"id": 0, "value": "x"}]}, "/3/0", [["/3/0/0", "String", "x"]]),
    (
        {"id": 3, "instances": [{"id": 0, "resources": [{"id": 0, "value": "x"}]}]},
        None,
        [["/3/0/0", "String", "x"]],
    ),
]


def test_nodes_without_kind_and_type():
    found = [decoded(node, path) for node, path, _ in UNTYPED]

    assert exact(found) == exact([rows for _, _, rows in UNTYPED])


NO_NODES = [
    ([], "/3"),
    ("x", "/3"),
    ({"kind": "obj", "id": 3, "instances": {}}, "/3"),
    ({"kind": "obj", "id": 3, "instances": [1]}, "/3"),
    ({"kind": "obj", "id": 3, "instances": [{"kind": "instance", "resources": []}]}, "/3"),
    ({"kind": "obj", "id": 3, "instances": [{"kind": "instance", "id": 65535, "resources": []}]}, "/3"),
    ({"kind": "obj", "id": 3, "instances": [{"kind": "instance", "id": True, "resources": []}]}, "/3"),
    ({"kind": "obj", "id": 3, "instances": [single("STRING", "")]}, "/3"),
    ({"kind": "obj", "id": 3, "instances": [{"kind": "obj", "id": 3, "instances": []}]}, "/3"),
    ({"kind": "obj", "id": 4, "instances": []}, "/3"),
    ({"kind": "obj", "instances": []}, None),
    ({"kind": "instance", "id": 0, "resources": []}, None),
    ({"kind": "instance", "id": 0, "resources": []}, "/3"),
    ({"kind": "instance", "id": 0, "resources": [single("STRING", "a"), single("STRING", "b")]}, "/3/0"),
    ({"kind": "multiResource", "id": 7, "type": "INTEGER", "values": ["1"]}, "/3/0/7"),
    ({"kind": "multiResource", "id": 7, "type": "INTEGER"}, "/3/0/7"),
    ({"kind": "multiResource", "id": 7, "type": "INTEGER", "values": {"x": "1"}}, "/3/0/7"),
    ({"kind": "multiResource", "id": 7, "type": "INTEGER", "values": {"65535": "1"}}, "/3/0/7"),
    ({"kind": "tree", "id": 3}, "/3"),
    ({"kind": ["obj"], "id": 3}, "/3"),
]


def test_other_nodes_are_refused():
    assert [decoded(node, path) for node, path in NO_NODES] == [ERROR] * len(NO_NODES)


def test_a_composite_is_a_map_of_paths_or_one_node():
    device = {"kind": "obj", "id": 3, "instances": [DEVICE]}
    types = given(TYPES)

    found = leshan_nodes.decode_composite(
        {"/3": device, "/3303/0/5700": None, "/9/0/1": single("STRING", "x")}, types
    )

    assert shown(found) == [*ROWS, ["/9/0/1", "String", "x"]]
    assert shown(leshan_nodes.decode_composite(device, types)) == ROWS
    assert leshan_nodes.decode_composite({}, types) == []


@pytest.mark.parametrize(
    "found",
    [
        [],
        None,
        {"3": None},
        {"/x": None},
        {"/3/0": DEVICE, "/3/0/0": single("STRING", "x", 0)},
        {"/9/0/1": single("INTEGER", "1"), "/9/0/1/0": {"id": 0, "type": "INTEGER", "value": "1"}},
        {"/9/0/1/0": {"id": 0, "type": "INTEGER", "value": "1"}, "/9/0/1": single("INTEGER", "1")},
    ],
)
def test_another_composite_is_refused(found):
    with pytest.raises(CodecError):
        leshan_nodes.decode_composite(found, lambda *_: None)


def test_a_type_of_the_registry_is_a_type_of_values():
    assert set(leshan_nodes.TYPES.values()) == set(DataType)
