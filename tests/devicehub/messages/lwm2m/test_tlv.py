"""TLV: kinds, ids and lengths of entries, values by type, and the base that an answer belongs to."""

import struct

import pytest

from devicehub.messages.lwm2m import tlv
from devicehub.messages.lwm2m.values import DataType, Value
from rig.lwm2m import ERROR, decoded, exact

pytestmark = pytest.mark.sqlite_only


def hexed(text):
    return bytes.fromhex(text.replace(" ", ""))


ANSWERS = {
    "a resource of an instance": ("/3/4", "c1 01 0a", [["/3/4/1", "Opaque", "0a"]]),
    "an id of 16 bits": ("/3/4", "e1 fffe 0a", [["/3/4/65534", "Opaque", "0a"]]),
    "a length of 8 bits": ("/3/4", "c8 01 08 0102030405060708", [["/3/4/1", "Opaque", "0102030405060708"]]),
    "a length of 16 bits": ("/3/4", "d0 01 0001 0a", [["/3/4/1", "Opaque", "0a"]]),
    "a length of 24 bits": ("/3/4", "f8 0102 000001 0a", [["/3/4/258", "Opaque", "0a"]]),
    "an empty value": ("/3/4", "c0 01", [["/3/4/1", "Opaque", ""]]),
    "the instance of the base": ("/3/4", "03 04 c1 01 0a", [["/3/4/1", "Opaque", "0a"]]),
    "instances of an object": (
        "/3",
        "03 04 c1 01 0a 03 05 c1 01 0b",
        [["/3/4/1", "Opaque", "0a"], ["/3/5/1", "Opaque", "0b"]],
    ),
    "resources of an object": ("/3", "c1 01 0a", [["/3/0/1", "Opaque", "0a"]]),
    "a multiple resource": (
        "/3/0",
        "86 06 41 00 01 41 01 05",
        [["/3/0/6/0", "Opaque", "01"], ["/3/0/6/1", "Opaque", "05"]],
    ),
    "a multiple resource in an instance": (
        "/3",
        "08 00 08 86 06 41 00 01 41 01 05",
        [["/3/0/6/0", "Opaque", "01"], ["/3/0/6/1", "Opaque", "05"]],
    ),
    "the resource of the base": ("/3/0/9", "c1 09 64", [["/3/0/9", "Opaque", "64"]]),
    "the resource of the base in its instance": ("/3/0/9", "03 00 c1 09 64", [["/3/0/9", "Opaque", "64"]]),
    "instances of the resource": (
        "/3/0/6",
        "41 00 01 41 01 05",
        [["/3/0/6/0", "Opaque", "01"], ["/3/0/6/1", "Opaque", "05"]],
    ),
    "a multiple resource as the base": ("/3/0/6", "83 06 41 00 01", [["/3/0/6/0", "Opaque", "01"]]),
    "one instance of the resource": ("/3/0/6/1", "41 01 05", [["/3/0/6/1", "Opaque", "05"]]),
    "one instance in its resource": ("/3/0/6/1", "83 06 41 01 05", [["/3/0/6/1", "Opaque", "05"]]),
    "a multiple resource without instances": ("/3/4", "80 05", []),
    "instances without resources": ("/3", "00 01 00 02", []),
    "nothing": ("/3/0", "", []),
}
REFUSED = {
    "no base": ("/", "c1 01 0a"),
    "nothing for a resource instance": ("/3/0/6/1", ""),
    "half an entry": ("/3/4", "c1"),
    "half an id": ("/3/4", "e7 01"),
    "half a length": ("/3/4", "f8 0102 0186"),
    "a value that ends early": ("/3/4", "c7 2a 303132"),
    "a value beyond its instance": ("/3", "03 04 c2 01 0a c1 02 0b"),
    "a resource instance beyond its resource": ("/3/0", "82 06 41 00 01"),
    "resource id 65535": ("/3/4", "e1 ffff 0a"),
    "instance id 65535": ("/3", "23 ffff c1 01 0a"),
    "resource instance id 65535": ("/5/0/1", "61 ffff 0a"),
    "another instance": ("/3/4", "03 05 c1 01 0a"),
    "another resource": ("/3/0/9", "c1 0a 64"),
    "another resource instance": ("/3/0/6/1", "41 00 05"),
    "a resource for a resource instance": ("/3/0/6/1", "c1 06 05"),
    "a resource instance without a resource": ("/3/0", "41 00 05"),
    "a resource instance of an object": ("/3", "41 00 05"),
    "an instance in a resource": ("/3/0", "82 06 00 00"),
    "an instance in an instance": ("/3", "02 00 00 01"),
    "a resource instance in an instance": ("/3", "03 00 41 00 01"),
    "a resource in a resource": ("/3/0", "83 06 c1 00 01"),
    "a multiple resource in a resource": ("/3/0", "82 06 80 00"),
    "an instance beside a resource": ("/3/0", "00 00 c1 01 0a"),
    "a resource beside a resource instance": ("/3/0/6", "41 00 01 c1 06 05"),
    "a resource twice": ("/3/4", "c1 01 0a c1 01 0a"),
    "an instance twice": ("/3", "00 01 00 01"),
    "a multiple resource twice": ("/3/4", "80 05 80 05"),
    "a resource instance twice": ("/3/0/6", "41 00 01 41 00 01"),
    "a resource with and without instances": ("/3/0", "83 06 41 00 01 c1 06 01"),
}
VALUES = {
    "Integer": [
        ("2a", 42),
        ("1092", 4242),
        ("fcde41b2", -52543054),
        ("00000062c6d1a9b2", 424242424242),
        ("ff", -1),
    ],
    "Unsigned Integer": [("ff", 255), ("ffff", 65535), ("ffffffff", 4294967295), ("ff" * 8, str(2**64 - 1))],
    "Float": [
        ("3f800000", 1.0),
        ("3ff199999999999a", 1.1),
        ("c7241000", -42000.0),
        ("40490fdb", 3.1415927410125732),
    ],
    "Boolean": [("00", False), ("01", True)],
    "Time": [("5182428f", 1367491215), ("ff", -1)],
    "Objlnk": [("00010000", "1:0"), ("ffffffff", "65535:65535")],
    "String": [("", ""), ("c3bc", "\u00fc"), ("00", "\0")],
    "Corelnk": [("3c2f333e", "</3>")],
    "Opaque": [("", ""), ("ff", "ff")],
}
WRONG = {
    "Integer": ["", "067932", "62c6d1a9b2", "2695a9e649b2", "0f12765df4c9b2", "0005e3363cb39ec9b2"],
    "Unsigned Integer": ["", "067932", "0100000000", "00" * 9],
    "Float": ["", "3f", "3f80", "3f8000", "3ff0000000", "00" * 9, "7fc00000", "7f800000", "fff0000000000000"],
    "Boolean": ["", "02", "0000", "ff"],
    "Time": ["", "000000", "00" * 9],
    "Objlnk": ["", "00", "000100", "ffffffffff"],
    "String": ["ff", "eda080"],
    "Corelnk": ["ff"],
}


def test_answers_for_a_base():
    found = {name: decoded("tlv", hexed(payload), base) for name, (base, payload, _) in ANSWERS.items()}

    assert found == {name: rows for name, (_, _, rows) in ANSWERS.items()}


def test_other_entries_are_refused():
    found = {name: decoded("tlv", hexed(payload), base) for name, (base, payload) in REFUSED.items()}

    assert found == dict.fromkeys(REFUSED, ERROR)


def value_of(kind, data):
    """Return the rows of a resource of type *kind*, whose bytes are *data* in hexadecimal digits."""
    payload = hexed(data)
    return decoded("tlv", b"\xc8\x01" + bytes([len(payload)]) + payload, "/9/0", {"9/1": kind})


@pytest.mark.parametrize("kind", VALUES)
def test_bytes_are_the_value_of_a_type(kind):
    found = {data: value_of(kind, data) for data, _ in VALUES[kind]}

    assert exact(found) == exact({data: [["/9/0/1", kind, value]] for data, value in VALUES[kind]})


@pytest.mark.parametrize("kind", WRONG)
def test_bytes_that_are_not_of_the_type_are_refused(kind):
    assert {data: value_of(kind, data) for data in WRONG[kind]} == dict.fromkeys(WRONG[kind], ERROR)


def test_a_length_is_written_in_its_shortest_form():
    for size in (0, 7, 8, 255, 256, 65535, 65536):
        data = bytes(size)
        payload = tlv.encode([Value((9, 0, 1), DataType.OPAQUE, data)], (9, 0))

        assert len(payload) == size + 2 + (size > 7) + (size > 255) + (size > 65535)
        assert tlv.decode(payload, (9, 0), lambda *_: None)[0].value == data


def test_a_float_is_written_in_four_bytes_if_it_loses_nothing():
    numbers = (1.5, struct.unpack(">f", b"\x3d\xcc\xcc\xcd")[0], 0.1, 1e300)

    sizes = [len(tlv.write_value(Value((9, 0, 1), DataType.FLOAT, number))) for number in numbers]

    assert sizes == [4, 4, 8, 8]
