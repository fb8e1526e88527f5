"""SenML in JSON and in CBOR: base fields, names, times, values, and the packs that are refused."""

import json
from decimal import Decimal

import cbor2
import pytest

from devicehub.messages.lwm2m import senml
from rig.lwm2m import ERROR, RECEIVED_AT, decoded, exact

pytestmark = pytest.mark.sqlite_only

TYPES = {
    "3303/5700": "Float",
    "3303/5701": "String",
    "3442/110": "String",
    "3442/120": "Integer",
    "3442/125": "Unsigned Integer",
    "3442/130": "Float",
    "3442/140": "Boolean",
    "3442/150": "Opaque",
    "3442/160": "Time",
    "3442/170": "Objlnk",
    "3442/180": "Corelnk",
}
T = "/3303/0/5700"
LABELS = {
    "bver": -1,
    "bn": -2,
    "bt": -3,
    "bu": -4,
    "bv": -5,
    "bs": -6,
    "n": 0,
    "u": 1,
    "v": 2,
    "vs": 3,
    "vb": 4,
}
LABELS |= {"s": 5, "t": 6, "ut": 7, "vd": 8}

# Records as in JSON, and the rows.
PACKS = {
    "a base name and names": (
        [{"bn": "/3303/0/", "n": "5700", "v": 20.5}, {"n": "5701", "vs": "Cel"}],
        [[T, "Float", 20.5], ["/3303/0/5701", "String", "Cel"]],
    ),
    "a base name cut in the middle of an id": (
        [{"bn": "/3303/0/57", "n": "00", "v": 1}],
        [[T, "Float", 1.0]],
    ),
    "a base name alone": ([{"bn": T, "v": 1}], [[T, "Float", 1.0]]),
    "an empty base name resets": (
        [{"bn": "/3303/0/", "n": "5700", "v": 1}, {"bn": "", "n": "/3303/1/5700", "v": 2}],
        [[T, "Float", 1.0], ["/3303/1/5700", "Float", 2.0]],
    ),
    "a record of base fields has no value": (
        [{"bn": "/3303/0/", "bv": 5, "bt": 1}, {"n": "5700", "v": 1}],
        [[T, "Float", 6.0, "now+1"]],
    ),
    "a base value alone is the value": ([{"bv": 20, "n": T}], [[T, "Float", 20.0]]),
    "a base value ends with the next": (
        [{"bv": 20, "n": T, "v": 1}, {"bv": 0, "n": "/3303/1/5700", "v": 1}],
        [[T, "Float", 21.0], ["/3303/1/5700", "Float", 1.0]],
    ),
    "a base value changes no string": (
        [{"bv": 20, "n": "/3303/0/5701", "vs": "x"}],
        [["/3303/0/5701", "String", "x"]],
    ),
    "decimals are added as decimals": ([{"bv": 0.1, "n": T, "v": 0.2}], [[T, "Float", 0.3]]),
    "a sum is not kept": ([{"n": T, "v": 1, "s": 5}, {"n": T, "s": 7}], [[T, "Float", 1.0]]),
    "a base sum changes nothing": ([{"bs": 3, "n": T, "v": 1}], [[T, "Float", 1.0]]),
    "units and update times are passed over": (
        [{"bu": "K", "n": T, "u": "Cel", "v": 1, "ut": 5}],
        [[T, "Float", 1.0]],
    ),
    "version 10": ([{"bver": 10, "n": T, "v": 1}], [[T, "Float", 1.0]]),
    "version 5": (
        [{"bver": 5, "n": T, "v": 1}, {"n": "/3303/1/5700", "v": 1}],
        [[T, "Float", 1.0], ["/3303/1/5700", "Float", 1.0]],
    ),
    "an unknown field": ([{"n": T, "v": 1, "x": [[{}], None]}], [[T, "Float", 1.0]]),
    "a time from now": ([{"n": T, "v": 1, "t": -5}], [[T, "Float", 1.0, "now-5"]]),
    "a time of zero is now": ([{"n": T, "v": 1, "t": 0}], [[T, "Float", 1.0, "now+0"]]),
    "a base time of zero is now": ([{"bt": 0, "n": T, "v": 1}], [[T, "Float", 1.0, "now+0"]]),
    "the last second before 2^28": (
        [{"bt": 2**28, "n": T, "v": 1, "t": -1}],
        [[T, "Float", 1.0, "now+268435455"]],
    ),
    "2^28 is a date": ([{"bt": 2**28 - 1, "n": T, "v": 1, "t": 1}], [[T, "Float", 1.0, 2**28]]),
    "a base time and a fraction": (
        [{"bt": 1276020076.001, "n": T, "v": 1, "t": -5}],
        [[T, "Float", 1.0, Decimal("1276020071.001")]],
    ),
    "a whole time with a point": ([{"n": T, "v": 1, "t": 1320067464.0}], [[T, "Float", 1.0, 1320067464]]),
    "a resource over time": (
        [{"bn": T, "bt": 1_600_000_000, "v": 1}, {"t": 1, "v": 2}],
        [[T, "Float", 1.0, 1_600_000_000], [T, "Float", 2.0, 1_600_000_001]],
    ),
    "resource instances": (
        [{"n": "/3303/0/5700/0", "v": 1}, {"n": "/3303/0/5700/65534", "v": 2}],
        [[f"{T}/0", "Float", 1.0], [f"{T}/65534", "Float", 2.0]],
    ),
    "the smallest integer": (
        [{"n": "/3442/0/120", "v": -(2**63)}],
        [["/3442/0/120", "Integer", "-9223372036854775808"]],
    ),
    "the largest unsigned integer": (
        [{"n": "/3442/0/125", "v": 2**64 - 1}],
        [["/3442/0/125", "Unsigned Integer", "18446744073709551615"]],
    ),
    "2^53 is a number": ([{"n": "/3442/0/120", "v": 2**53}], [["/3442/0/120", "Integer", 2**53]]),
    "an integer with a point": ([{"n": "/3442/0/120", "v": 42.0}], [["/3442/0/120", "Integer", 42]]),
    "a boolean": ([{"n": "/3442/0/140", "vb": False}], [["/3442/0/140", "Boolean", False]]),
    "a time as a value": ([{"n": "/3442/0/160", "v": -1}], [["/3442/0/160", "Time", -1]]),
    "a link to nothing": (
        [{"n": "/3442/0/170", "vlo": "65535:65535"}],
        [["/3442/0/170", "Objlnk", "65535:65535"]],
    ),
    "links of objects": (
        [{"n": "/3442/0/180", "vs": "</3>;ver=1.1"}],
        [["/3442/0/180", "Corelnk", "</3>;ver=1.1"]],
    ),
    "an empty string": ([{"n": "/3442/0/110", "vs": ""}], [["/3442/0/110", "String", ""]]),
    "types that nothing declares": (
        [
            {"n": "/9/0/1", "v": 1},
            {"n": "/9/0/2", "v": 1.5},
            {"n": "/9/0/3", "vs": "x"},
            {"n": "/9/0/4", "vb": True},
            {"n": "/9/0/5", "vlo": "1:2"},
            {"n": "/9/0/6", "v": 2**63},
        ],
        [
            ["/9/0/1", "Integer", 1],
            ["/9/0/2", "Float", 1.5],
            ["/9/0/3", "String", "x"],
            ["/9/0/4", "Boolean", True],
            ["/9/0/5", "Objlnk", "1:2"],
            ["/9/0/6", "Unsigned Integer", str(2**63)],
        ],
    ),
    "an empty pack": ([], []),
}
REFUSED = {
    "not an array": {"n": T, "v": 1},
    "a record that is not a map": [1],
    "no value": [{"n": T}],
    "an empty record": [{}],
    "two values": [{"n": T, "v": 1, "vs": "x"}],
    "a value and a link": [{"n": T, "v": 1, "vlo": "1:2"}],
    "no name": [{"v": 1}],
    "an empty name": [{"bn": "", "n": "", "v": 1}],
    "a name without a slash": [{"n": "3303/0/5700", "v": 1}],
    "a slash at the end": [{"n": f"{T}/", "v": 1}],
    "two slashes": [{"n": "/3303//5700", "v": 1}],
    "a leading zero": [{"n": "/3303/0/05700", "v": 1}],
    "digits of another script": [{"n": "/3303/0/\u0661", "v": 1}],
    "an object instance": [{"n": "/3303/0", "v": 1}],
    "five ids": [{"n": f"{T}/0/0", "v": 1}],
    "id 65536": [{"n": "/3303/0/65536", "v": 1}],
    "instance 65535": [{"n": "/3303/65535/5700", "v": 1}],
    "resource instance 65535": [{"n": f"{T}/65535", "v": 1}],
    "the same path twice": [{"n": T, "v": 1}, {"n": T, "v": 2}],
    "the same path and time twice": [{"bt": 2**30, "n": T, "v": 1}, {"n": T, "v": 1, "t": 0}],
    "a value beside instances": [{"n": T, "v": 1}, {"n": f"{T}/0", "v": 2}],
    "instances beside a value": [{"n": f"{T}/0", "v": 2}, {"n": T, "v": 1}],
    "a field that must be understood": [{"n": T, "v": 1}, {"n": T, "v": 1, "t": 1, "x_": 0}],
    "version 11": [{"bver": 11, "n": T, "v": 1}],
    "version 0": [{"bver": 0, "n": T, "v": 1}],
    "a version with a fraction": [{"bver": 9.5, "n": T, "v": 1}],
    "another version later": [{"bver": 5, "n": T, "v": 1}, {"bver": 10, "n": T, "v": 1, "t": 1}],
    "a version in the second record only": [{"n": T, "v": 1}, {"bver": 5, "n": T, "v": 1, "t": 1}],
    "a version that is a text": [{"bver": "10", "n": T, "v": 1}],
    "a number as a text": [{"n": T, "v": "1"}],
    "a boolean as a number": [{"n": T, "v": True}],
    "a number as a boolean": [{"n": "/3442/0/140", "vb": 1}],
    "a null": [{"n": T, "v": None}],
    "a list": [{"n": T, "v": [1]}],
    "a time that is a text": [{"n": T, "v": 1, "t": "0"}],
    "a base time that is a boolean": [{"bt": True, "n": T, "v": 1}],
    "a name that is a number": [{"n": 1, "v": 1}],
    "a unit that is a number": [{"n": T, "u": 1, "v": 1}],
    "a time beyond 64 bits": [{"n": T, "v": 1, "t": 2**63}],
    "a string for a Float": [{"n": T, "vs": "20"}],
    "a boolean for a Float": [{"n": T, "vb": True}],
    "a number for a String": [{"n": "/3303/0/5701", "v": 1}],
    "a number for a Boolean": [{"n": "/3442/0/140", "v": 1}],
    "a string for a link": [{"n": "/3442/0/170", "vs": "1:2"}],
    "a string for an Opaque": [{"n": "/3442/0/150", "vs": "aGk"}],
    "a fraction for an Integer": [{"n": "/3442/0/120", "v": 1.5}],
    "an Integer beyond 64 bits": [{"n": "/3442/0/120", "v": 2**63}],
    "an Unsigned Integer below zero": [{"n": "/3442/0/125", "v": -1}],
    "an Unsigned Integer beyond 64 bits": [{"n": "/3442/0/125", "v": 2**64}],
    "an unknown number beyond 64 bits": [{"n": "/9/0/1", "v": 2**64}],
    "a base value that makes a fraction": [{"bv": 0.5, "n": "/3442/0/120", "v": 1}],
    "a link with one number": [{"n": "/3442/0/170", "vlo": "1"}],
    "a link above 65535": [{"n": "/3442/0/170", "vlo": "65536:0"}],
    "a long base name": [{"bn": "/" * 256, "n": T, "v": 1}],
    "a long name": [{"n": "/" * 256, "v": 1}],
}


def in_json(pack):
    return json.dumps(pack).encode()


def in_cbor(pack):
    if not isinstance(pack, list):
        return cbor2.dumps(pack)
    return cbor2.dumps(
        [
            {LABELS.get(label, label): held for label, held in r.items()} if isinstance(r, dict) else r
            for r in pack
        ]
    )


FORMS = [("senml+json", in_json), ("senml+cbor", in_cbor)]


@pytest.mark.parametrize(("form", "written"), FORMS, ids=["json", "cbor"])
def test_packs_are_resolved(form, written):
    found = {name: decoded(form, written(pack), types=TYPES) for name, (pack, _) in PACKS.items()}

    assert exact(found) == exact({name: rows for name, (_, rows) in PACKS.items()})


@pytest.mark.parametrize(("form", "written"), FORMS, ids=["json", "cbor"])
def test_packs_are_refused_as_a_whole(form, written):
    found = {name: decoded(form, written(pack), types=TYPES) for name, pack in REFUSED.items()}

    assert found == dict.fromkeys(REFUSED, ERROR)


def test_a_path_outside_of_the_base_is_refused():
    pack = in_json([{"n": T, "v": 1}])

    assert decoded("senml+json", pack, "/3303/0", TYPES) == [[T, "Float", 1.0]]
    for base in ("/3303/1", "/3304", "/3303/0/5701", f"{T}/0"):
        assert decoded("senml+json", pack, base, TYPES) == ERROR


BYTES = {
    '"AQIDBA"': "01020304",
    '"AQIDBA=="': "01020304",  # Leshan and Wakaama accept padding.
    '"-_8"': "fbff",
    '""': "",
    '"+/8"': ERROR,  # The alphabet of URLs is another one.
    '"AQIDBA="': ERROR,
    '"AQIDB"': ERROR,
    '"AQ ID"': ERROR,
    '"AR"': ERROR,  # Bits behind the last byte.
    "1": ERROR,
}
NUMBERS = [
    ("1.638435E9", "Time", 1638435000),
    ("1e3", "Integer", 1000),
    ("9223372036854775807.0", "Integer", "9223372036854775807"),
    ("1.0E-5", "Float", 1e-05),
    ("-0.0", "Float", -0.0),
    ("0.1000000000000000055511151231257827", "Float", 0.1),
    ("1367491215.5", "Time", Decimal("1367491215.5")),
]
NO_NUMBERS = [
    *("NaN", "Infinity", "-Infinity", "1e400", "01", "+1", "1.", ".5", "0x10", "1e", '"1"'),
    *("9" * 5000, "1e99999999999999999999"),
]


def test_bytes_in_json_are_base64url():
    found = {text: decoded("senml+json", f'[{{"n":"/9/0/1","vd":{text}}}]') for text in BYTES}

    assert found == {
        text: ERROR if data == ERROR else [["/9/0/1", "Opaque", data]] for text, data in BYTES.items()
    }


def test_numbers_that_json_or_a_float_cannot_hold_are_refused():
    found = {number[:30]: decoded("senml+json", f'[{{"n":"{T}","v":{number}}}]') for number in NO_NUMBERS}

    assert set(found.values()) == {ERROR}, found


def test_a_number_in_json_keeps_its_digits():
    rows = [
        decoded("senml+json", f'[{{"n":"/9/0/1","v":{number}}}]', types={"9/1": kind})
        for number, kind, _ in NUMBERS
    ]

    assert exact(rows) == exact([[["/9/0/1", kind, value]] for _, kind, value in NUMBERS])


def test_a_number_of_no_known_type_keeps_digits_that_a_float_loses():
    found = decoded("senml+json", '[{"n":"/9/0/1","v":0.12345678901234567890123}]')

    assert found == [["/9/0/1", "Float", Decimal("0.12345678901234567890123")]]


NO_JSON = [
    "",
    " ",
    "[",
    '[{"n":"/9/0/1","v":1}',
    '[{"n":"/9/0/1","v":1},]',
    '[{"n":"/9/0/1","v":1}] x',
    '[{"n":"/9/0/1","v":1,"v":1}]',  # A name twice.
    '[{"n":"/9/0/1","vs":"\\ud800"}]',
    '[{"n":"/9/0/1","vs":"\n"}]',
    '[{"n":"/9/0/1","v":1,"x":' + "[" * 5000 + "]" * 5000 + "}]",
    b'[{"n":"/9/0/1","vs":"\xff"}]',
]


def test_text_that_is_not_json_is_refused():
    assert [decoded("senml+json", text) for text in NO_JSON] == [ERROR] * len(NO_JSON)


def test_a_byte_order_mark_is_passed_over():
    assert decoded("senml+json", b'\xef\xbb\xbf[{"n":"/9/0/1","v":1}]') == [["/9/0/1", "Integer", 1]]


NAMES = ["urn:dev:ow:10e2073a01080063:temp", "0", "a/b.c_d-e"]
NO_NAMES = ["", "/3303/0/5700", "-a", "a b", "\u00e9"]


def test_a_name_that_is_not_a_path_has_the_characters_of_senml():
    found = [decoded("senml+json", json.dumps([{"n": name, "v": 1}]), base="") for name in NAMES + NO_NAMES]

    assert found == [[[name, "Float", 1.0]] for name in NAMES] + [ERROR] * len(NO_NAMES)


def test_records_with_names_keep_their_units():
    pack = in_json(
        [{"bn": "a:", "bu": "Cel", "n": "b", "v": 1}, {"n": "b", "u": "K", "v": 2}, {"n": "c", "vs": "x"}]
    )

    assert [record.unit for record in senml.decode_names_json(pack, RECEIVED_AT)] == ["Cel", "K", ""]


@pytest.mark.parametrize(
    ("pack", "rows"),
    [
        ('[{"bn":"/9/0/","of_later":1},{"n":"1","v":1}]', [["/9/0/1", "Integer", 1]]),
        ('[{"bn":"/9/0/","bs":10,"n":"1","s":5},{"n":"2"}]', []),
        ('[{"bn":"/9/0/","bs":10,"bv":3},{"n":"2"}]', [["/9/0/2", "Integer", 3]]),
        ('[{"of_later":1}]', ERROR),
        ('[{"n":"/9/0/1","of_later":1}]', ERROR),
    ],
)
def test_unknown_fields_and_base_sums_do_not_make_a_record_without_value_wrong(pack, rows):
    assert decoded("senml+json", pack) == rows
