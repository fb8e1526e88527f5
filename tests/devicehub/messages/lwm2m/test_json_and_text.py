"""The JSON of LwM2M 1.0, plain text and opaque bytes."""

import json
from decimal import Decimal

import pytest

from devicehub.messages.lwm2m import exact_json
from rig.lwm2m import ERROR, decoded, exact

pytestmark = pytest.mark.sqlite_only

TYPES = {
    "1024/0": "String",
    "1024/1": "Float",
    "1024/2": "Boolean",
    "1024/3": "Opaque",
    "1024/4": "Objlnk",
    "1024/5": "Integer",
    "1024/6": "Time",
}
F = "/1024/0/1"

DOCUMENTS = {
    "a base name": ({"bn": "/1024/0/", "e": [{"n": "1", "v": 22.9}]}, [[F, "Float", 22.9]]),
    "a base name without a slash": ({"bn": "1024/0/", "e": [{"n": "1", "v": 1}]}, [[F, "Float", 1.0]]),
    "a base name cut in the middle of an id": (
        {"bn": "/10", "e": [{"n": "24/0/1", "v": 1}]},
        [[F, "Float", 1.0]],
    ),
    "a whole base name": ({"bn": F, "e": [{"v": 1}]}, [[F, "Float", 1.0]]),
    "no base name and whole names": ({"e": [{"n": F, "v": 1}]}, [[F, "Float", 1.0]]),
    "no base name and names in the base": ({"e": [{"n": "1", "v": 1}]}, [[F, "Float", 1.0]]),
    "an empty base name": ({"bn": "", "e": [{"n": "1", "v": 1}]}, [[F, "Float", 1.0]]),
    "a boolean": ({"e": [{"n": "2", "bv": True}]}, [["/1024/0/2", "Boolean", True]]),
    "bytes": ({"e": [{"n": "3", "sv": "+/8="}]}, [["/1024/0/3", "Opaque", "fbff"]]),
    "a link": ({"e": [{"n": "4", "ov": "65535:65535"}]}, [["/1024/0/4", "Objlnk", "65535:65535"]]),
    "the largest integer": ({"e": [{"n": "5", "v": 2**63 - 1}]}, [["/1024/0/5", "Integer", str(2**63 - 1)]]),
    "a time as a value": ({"e": [{"n": "6", "v": 1.5e9}]}, [["/1024/0/6", "Time", 1500000000]]),
    "resource instances": (
        {"e": [{"n": "5/0", "v": 1}, {"n": "5/7", "v": 2}]},
        [["/1024/0/5/0", "Integer", 1], ["/1024/0/5/7", "Integer", 2]],
    ),
    "a base time is a date, however small": (
        {"bn": F, "bt": 25462634, "e": [{"v": 22.9, "t": -30}, {"v": 22.4}]},
        [[F, "Float", 22.9, 25462604], [F, "Float", 22.4, 25462634]],
    ),
    "a time from now": (
        {"bn": F, "e": [{"v": 1, "t": -30}, {"v": 2}]},
        [[F, "Float", 1.0, "now-30"], [F, "Float", 2.0]],
    ),
    "a date without a base time": ({"bn": F, "e": [{"v": 1, "t": 1.5e9}]}, [[F, "Float", 1.0, 1500000000]]),
    "a fraction of a second": (
        {"bn": F, "bt": 0.1, "e": [{"v": 1, "t": 0.2}]},
        [[F, "Float", 1.0, Decimal("0.3")]],
    ),
    "unknown members": ({"x_": 1, "e": [{"n": "1", "v": 1, "y": None}]}, [[F, "Float", 1.0]]),
    "no entries": ({"bn": "/1024", "e": []}, []),
    "types that nothing declares": (
        {
            "e": [
                {"n": "10", "v": 1},
                {"n": "11", "v": 0.5},
                {"n": "12", "sv": "aGk="},
                {"n": "13", "bv": False},
            ]
        },
        [
            *(["/1024/0/10", "Integer", 1], ["/1024/0/11", "Float", 0.5]),
            *(["/1024/0/12", "String", "aGk="], ["/1024/0/13", "Boolean", False]),
        ],
    ),
}
REFUSED = {
    "an array": [{"n": "1", "v": 1}],
    "no entries": {"bn": "/1024/0/"},
    "entries that are a map": {"e": {}},
    "an entry that is a number": {"e": [1]},
    "no value": {"e": [{"n": "1"}]},
    "two values": {"e": [{"n": "1", "v": 1, "bv": True}]},
    "a base value": {"e": [{"n": "2", "bv": 1}]},
    "a number as a text": {"e": [{"n": "1", "v": "1"}]},
    "a null": {"e": [{"n": "1", "v": None}]},
    "a base name that is a number": {"bn": 1, "e": []},
    "a base time that is a text": {"bt": "1", "e": []},
    "a time that is a boolean": {"e": [{"n": "1", "v": 1, "t": True}]},
    "a time beyond 64 bits": {"bt": 2**63, "e": [{"n": "1", "v": 1}]},
    "a string for a Float": {"e": [{"n": "1", "sv": "1"}]},
    "a string for a link": {"e": [{"n": "4", "sv": "1:2"}]},
    "no base64": {"e": [{"n": "3", "sv": "-_8="}]},
    "a fraction for an Integer": {"e": [{"n": "5", "v": 0.5}]},
    "an object instance": {"bn": "/1024/0", "e": [{"v": 1}]},
    "no path": {"bn": "/1024/0/", "e": [{"n": "x", "v": 1}]},
    "id 65535": {"e": [{"n": "65535", "v": 1}]},
    "another instance": {"bn": "/1024/1/", "e": [{"n": "1", "v": 1}]},
    "the same name twice": {"e": [{"n": "1", "v": 1}, {"n": "1", "v": 2}]},
    "a value and instances": {"e": [{"n": "5", "v": 1}, {"n": "5/0", "v": 2}]},
    "a long base name": {"bn": "/" * 256, "e": [{"n": "1", "v": 1}]},
    "a long name": {"e": [{"n": "/" * 256, "v": 1}]},
}


def test_documents_of_lwm2m_json():
    found = {
        name: decoded("lwm2m+json", json.dumps(document), "/1024/0", TYPES)
        for name, (document, _) in DOCUMENTS.items()
    }

    assert exact(found) == exact({name: rows for name, (_, rows) in DOCUMENTS.items()})


def test_other_documents_are_refused():
    found = {
        name: decoded("lwm2m+json", json.dumps(held), "/1024/0", TYPES) for name, held in REFUSED.items()
    }

    assert found == dict.fromkeys(REFUSED, ERROR)


TEXTS = {
    "String": [("", ""), ("\u00fc \n", "\u00fc \n"), ("1", "1"), ("\0", "\0")],
    "Integer": [
        ("0", 0),
        ("-1", -1),
        ("+5", 5),
        ("007", 7),
        ("-9223372036854775808", "-9223372036854775808"),
    ],
    "Unsigned Integer": [("18446744073709551615", "18446744073709551615"), ("0", 0)],
    "Float": [
        ("1.0E-5", 1e-05),
        ("20", 20.0),
        ("-0.0", -0.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("3.26e+218", 3.26e218),
    ],
    "Boolean": [("0", False), ("1", True)],
    "Opaque": [("", ""), ("AQIDBAU=", "0102030405"), ("AQIDBAU", "0102030405"), ("+/8", "fbff")],
    "Time": [("1367491215", 1367491215), ("-1", -1)],
    "Objlnk": [("12:34", "12:34"), ("65535:65535", "65535:65535")],
    "Corelnk": [("</3>;ver=1.1", "</3>;ver=1.1")],
}
NO_TEXTS = {
    "String": [b"\xff"],
    "Integer": [
        "",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "1e3",
        "wat",
        "9223372036854775808",
        "-9223372036854775809",
        "\u0661",
        "9" * 5000,
    ],
    "Unsigned Integer": ["-1", "18446744073709551616", "1_0"],
    "Float": ["", "NaN", "Infinity", "-inf", "1e400", "wat", "1,5", "0x1p3", "1_0", ".", "e5"],
    "Boolean": ["", "2", "-1", "true", "01"],
    "Opaque": ["!,-INVALID$_'", "AQIDBA=", "-_8=", "A", "AQ==AQ==", "\u00fc"],
    "Time": ["", "1.5", "2013-03-21T20:04:00Z", "9223372036854775808"],
    "Objlnk": ["", "12", "12:", ":34", "12:34:56", "65536:0", "-1:0", "12 :34"],
}


@pytest.mark.parametrize("path", ["/9/0/1", "/9/0/1/2"])
def test_a_text_is_the_value_of_a_type(path):
    rows = [(kind, text, value) for kind, texts in TEXTS.items() for text, value in texts]

    found = [decoded("text", text, path, {"9/1": kind}) for kind, text, _ in rows]

    assert exact(found) == exact([[[path, kind, value]] for kind, _, value in rows])


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_a_text_that_is_not_of_the_type_is_refused(kind):
    found = {text[:30]: decoded("text", text, "/9/0/1", {"9/1": kind}) for text in NO_TEXTS[kind]}

    assert set(found.values()) == {ERROR}, found


def test_a_text_without_a_type_is_a_string():
    assert decoded("text", "20.5", "/9/0/1") == [["/9/0/1", "String", "20.5"]]


def test_opaque_bytes_belong_to_an_opaque_resource():
    assert decoded("opaque", b"\xff\0", "/5/0/0", {"5/0": "Opaque"}) == [["/5/0/0", "Opaque", "ff00"]]
    assert decoded("opaque", b"", "/5/0/0") == [["/5/0/0", "Opaque", ""]]
    assert decoded("opaque", b"\xff", "/5/0/0", {"5/0": "String"}) == ERROR


@pytest.mark.parametrize(
    "payload",
    [
        '[{"n":"/3303/0/5700","v":20.5},{"n":"/3/0/9","v":-7}]',
        '[{"n":"/3303/0/5700","v":123456.123456789}]',
        '[{"n":"/3303/0/5700","v":0.12345678901234567}]',
        '[{"n":"/3303/0/5700","v":1e400}]',
        '[{"n":"/3303/0/5700","v":12345678901234567890}]',
        '[{"n":"/3303/0/5700","v":1.10}]',
        '[{"n":"/3303/0/5700","vs":"a:b"}]',
        '[{"n":"/3303/0/5700","vs":"1E5"}]',
        '[{"n":"/3303/0/5700","v":1,"v":2}]',
        '[{"n":"/3303/0/5700","v":1,"v":2,"u":"a:b"}]',
        '[{"n":"/3303/0/5700","vs":"\\ud800"}]',
        '[{"n":{"a":1},"v":1}]',
        '[{"n":[[[1]]],"v":1}]',
        '[{"n":"/3303/0/5700","v":NaN}]',
        "[]",
        "[[]]",
        "[1]",
        '[{"n":"/3303/0/5700","v":-0}]',
        '[{"n":"/3303/0/5700","v":-0.0}]',
    ],
)
@pytest.mark.parametrize("types", [{}, {"3303/5700": "Float"}, {"3303/5700": "Integer"}])
def test_the_fast_way_to_read_json_finds_the_values_of_the_slow_one(payload, types, monkeypatch):
    fast = decoded("senml+json", payload, "/", types)
    monkeypatch.setattr("devicehub.messages.lwm2m.exact_json._read_fast", lambda _: None)

    assert exact(fast) == exact(decoded("senml+json", payload, "/", types))


def test_most_packs_are_read_the_fast_way():
    assert exact_json._read_fast(b'[{"bn":"/3303/0/","bt":1764550000.123,"n":"5700","v":21.37}]') is not None
    assert exact_json._read_fast(b'[{"n":"/3303/0/5700","v":0.1234567890123456}]') is None
