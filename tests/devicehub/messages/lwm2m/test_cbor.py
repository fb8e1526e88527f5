"""CBOR byte by byte: SenML CBOR, LwM2M CBOR, and plain CBOR of one value."""

from decimal import Decimal

import pytest

from rig.lwm2m import ERROR, decoded, exact

pytestmark = pytest.mark.sqlite_only

P = "/13/26/1"


def hexed(text):
    return bytes.fromhex(text.replace(" ", ""))


# One item, and its type and value as the value of a resource without a type.
ITEMS = {
    "00": ("Integer", 0),
    "1818": ("Integer", 24),
    "1903e8": ("Integer", 1000),
    "1a000f4240": ("Integer", 1000000),
    "1b0020000000000001": ("Integer", "9007199254740993"),
    "1bffffffffffffffff": ("Unsigned Integer", "18446744073709551615"),
    "3b7fffffffffffffff": ("Integer", "-9223372036854775808"),
    "20": ("Integer", -1),
    "1b0000000000000001": ("Integer", 1),  # Not the shortest form.
    "f94d00": ("Float", 20.0),
    "f90001": ("Float", 5.960464477539063e-08),
    "f98000": ("Float", -0.0),
    "fa47c35000": ("Float", 100000.0),
    "fb3ff199999999999a": ("Float", 1.1),
    "f5": ("Boolean", True),
    "f4": ("Boolean", False),
    "60": ("String", ""),
    "62c3bc": ("String", "\u00fc"),
    "7f 62 4142 60 61 43 ff": ("String", "ABC"),
    "7fff": ("String", ""),
    "40": ("Opaque", ""),
    "43 010203": ("Opaque", "010203"),
    "5f 41 01 42 0203 ff": ("Opaque", "010203"),
    "c2 41 0a": ("Integer", 10),
    "c3 41 0a": ("Integer", -11),
    "c2 48 ffffffffffffffff": ("Unsigned Integer", "18446744073709551615"),
    "c4 82 20 182d": ("Float", 4.5),
    "c4 82 21 19 6ab3": ("Float", 273.15),
    "c4 9f 20 182d ff": ("Float", 4.5),
    "c4 82 00 05": ("Float", 5.0),
    "c5 82 20 03": ("Float", 1.5),
    "c4 82 34 c2 49 010000000000000001": ("Float", Decimal("0.018446744073709551617")),
    "c1 1a 51824290": ("Time", 1367491216),
    "c1 20": ("Time", -1),
    "c1 fb 41d452d9ec000000": ("Time", 1363896240),
    "c1 fb 41d452d9ec200000": ("Time", Decimal("1363896240.5")),
    "c0 74 323031332d30332d32315432303a30343a30305a": ("Time", 1363896240),
    "d9d9f7 01": ("Integer", 1),  # Self-described CBOR.
    "d8 20 61 41": ("String", "A"),  # A tag without a meaning here, a URI.
    "d8 20 d8 21 01": ("Integer", 1),
}
BROKEN = {
    "": "nothing",
    "18": "an argument is missing",
    "1900": "half an argument",
    "1c": "a reserved length",
    "1f": "an open integer",
    "ff": "a break",
    "61": "a missing byte",
    "62 41": "a string too short",
    "5b ffffffffffffffff": "a string of 2^64 bytes",
    "7b 7fffffffffffffff 41": "a string of 2^63 bytes",
    "61 ff": "not UTF-8",
    "63 eda080": "half a surrogate pair",
    "7f 61 41": "an open string without an end",
    "7f 41 41 ff": "bytes in a text",
    "7f 7f 61 41 ff ff": "an open string in an open string",
    "5f 01 ff": "an integer in a string",
    "f6": "null",
    "f7": "undefined",
    "e0": "a simple value",
    "f8 18": "a simple value of two bytes",
    "f97e00": "NaN",
    "f97c00": "Infinity",
    "fa7f800000": "Infinity in four bytes",
    "fbfff0000000000000": "minus Infinity",
    "f9 4d": "half a half float",
    "01 01": "two items",
    "80": "an array",
    "a0": "a map",
    "9b ffffffffffffffff": "an array of 2^64 items",
    "c0": "a tag alone",
    "c0 01": "a date that is a number",
    "c0 61 41": "a date that is not one",
    "c1 61 41": "seconds in a text",
    "c1 f97e00": "NaN seconds",
    "c1 c1 01": "a tag on a tag",
    "c2 01": "a bignum that is a number",
    "c2 61 41": "a bignum in a text",
    "c2 58 81" + "ff" * 129: "a bignum of 129 bytes",
    "c2 49 010000000000000000": "an integer beyond 64 bits",
    "c4 01": "a decimal fraction that is a number",
    "c4 81 01": "a decimal fraction with one part",
    "c4 83 01 01 01": "a decimal fraction with three parts",
    "c4 82 01 f93c00": "a mantissa that is a float",
    "c4 82 1b 7fffffffffffffff 01": "a huge exponent",
    "c4 82 19 0400 01": "beyond every float",
    "c5 82 19 0400 01": "2^1024",
    "c4 c4 82 20 01": "a tag on a decimal fraction",
    "d9 d9f7": "a tag alone",
}


RESOURCE = "a1 83 0d 18 1a 01"  # A map of LwM2M CBOR, up to the value.


@pytest.mark.parametrize(("form", "before"), [("cbor", ""), ("lwm2m+cbor", RESOURCE)])
def test_one_item_is_the_value_of_a_resource(form, before):
    found = {item: decoded(form, hexed(before + item), P) for item in ITEMS}

    assert exact(found) == exact({item: [[P, kind, value]] for item, (kind, value) in ITEMS.items()})


def test_other_items_are_refused():
    record = "81 a2 00 68 2f31332f32362f31 02"
    for form, before in (("cbor", ""), ("senml+cbor", record), ("lwm2m+cbor", RESOURCE)):
        found = {
            name: decoded(form, hexed(before + item), "/" if before else P) for item, name in BROKEN.items()
        }
        if form == "lwm2m+cbor":
            assert found.pop("a map") == []  # A resource without instances.
        assert set(found.values()) == {ERROR}, found


TYPED = [
    ("65 31323a3334", "Objlnk", "12:34"),
    ("18 2a", "Float", 42.0),
    ("f93c00", "Integer", 1),
    ("c4 82 01 05", "Integer", 50),
    ("1a 51824290", "Time", 1367491216),
    ("d8 01 0f", "Integer", 15),
    ("c1 f93e00", "Float", 1.5),
    ("68 3c2f333e2c3c2f34", "Corelnk", "</3>,</4"),
]
MISTYPED = [
    ("61 31", "Integer"),
    ("f93e00", "Integer"),
    ("20", "Unsigned Integer"),
    ("01", "Boolean"),
    ("f5", "Integer"),
    ("01", "String"),
    ("41 41", "String"),
    ("61 41", "Opaque"),
    ("61 31", "Objlnk"),
    ("44 00010002", "Objlnk"),
    ("61 31", "Time"),
    ("c0 61 41", "String"),
    ("f5", "Float"),
]


def test_an_item_has_the_type_of_its_resource():
    found = [decoded("cbor", hexed(item), P, {"13/1": kind}) for item, kind, _ in TYPED]

    assert exact(found) == exact([[[P, kind, value]] for _, kind, value in TYPED])


def test_an_item_of_another_type_is_refused():
    found = {row: decoded("cbor", hexed(row[0]), P, {"13/1": row[1]}) for row in MISTYPED}

    assert set(found.values()) == {ERROR}, found


def test_one_value_needs_a_resource():
    for form in ("cbor", "text", "opaque"):
        assert [decoded(form, b"\x01", base) for base in ("/", "/13", "/13/26")] == [ERROR] * 3


MAPS = {
    "an array of ids": ("a1 83 0d 18 1a 01 18 2a", [[P, "Integer", 42]]),
    "open map and array": ("bf 9f 0d 18 1a 01 ff 18 2a ff", [[P, "Integer", 42]]),
    "nested": ("a1 0d a1 18 1a a1 01 18 2a", [[P, "Integer", 42]]),
    "nested arrays": ("a1 81 0d a1 81 18 1a a1 81 01 18 2a", [[P, "Integer", 42]]),
    "nested and open": ("bf 9f 0d ff bf 9f 18 1a ff bf 9f 01 ff 18 2a ff ff ff", [[P, "Integer", 42]]),
    "resource instances": (
        "a1 83 0d 18 1a 01 a2 00 05 81 03 06",
        [[f"{P}/0", "Integer", 5], [f"{P}/3", "Integer", 6]],
    ),
    "an array that ends in an instance": ("a1 82 0d 18 1a a1 82 01 02 05", [[f"{P}/2", "Integer", 5]]),
    "one object in two keys": (
        "a2 82 0d 18 1a a1 01 18 2a 83 0d 18 1a 02 15",
        [[P, "Integer", 42], ["/13/26/2", "Integer", 21]],
    ),
    "two objects": (
        "a2 0d a1 18 1a a1 01 01 0e a1 18 1b a1 02 02",
        [[P, "Integer", 1], ["/14/27/2", "Integer", 2]],
    ),
    "no object": ("a0", []),
    "an object without instances": ("a1 0d a0", []),
    "an id that is not in its shortest form": ("a1 83 19 000d 18 1a 01 01", [[P, "Integer", 1]]),
    "the largest id": ("a1 83 19 fffe 00 00 01", [["/65534/0/0", "Integer", 1]]),
}
NO_MAPS = {
    "an integer": "00",
    "an array": "84 01 02 03 04",
    "a tag": "c1 a0",
    "an id above 65534": "a1 83 19 ffff 00 00 01",
    "an id of 32 bits": "a1 82 0d 18 1a a1 1a 00010000 05",
    "a negative id": "a1 20 a1 00 a1 00 01",
    "a float as an id": "a1 83 0d f93c00 01 01",
    "a boolean as an id": "a1 83 0d f4 01 01",
    "a text as an id": "a1 0d a1 62 3236 a1 01 18 2a",
    "bytes as an id": "a1 41 0d a1 00 a1 00 01",
    "a map as a key": "a1 a0 01",
    "a nested array as a key": "a1 81 81 0d a1 00 a1 00 01",
    "no id": "a1 80 a1 0d a1 00 a1 00 01",
    "five ids": "a1 85 0d 18 1a 03 04 05 05",
    "five ids in two keys": "a1 83 0d 18 1a 01 a1 82 03 04 05",
    "five levels": "a1 0d a1 18 1a a1 01 a1 02 a1 03 04",
    "many open levels": "bf 00" * 3000,
    "a value of an object instance": "a1 82 0d 18 1a 05",
    "a value of an object": "a1 0d 05",
    "an array of maps": "a1 0d a1 18 1a 81 a1 01 18 2a",
    "the same path twice": "a2 83 0d 18 1a 01 01 83 0d 18 1a 01 02",
    "the same path in two forms": "a2 83 0d 18 1a 01 01 82 0d 18 1a a1 01 02",
    "a key twice": "a2 0d a1 18 1a a1 01 01 0d a1 18 1a a1 02 02",
    "a value and instances": "a2 83 0d 18 1a 01 01 84 0d 18 1a 01 00 02",
    "fewer entries than promised": "a2 83 0d 18 1a 01 18 2a",
    "a map of 2^64 entries": "bb ffffffffffffffff",
    "a key without a value": "a1 83 0d 18 1a 01",
    "an open map with half an entry": "bf 0d ff",
    "bytes behind the map": "a0 00",
}


def test_keys_of_maps_make_paths():
    found = {name: decoded("lwm2m+cbor", hexed(payload)) for name, (payload, _) in MAPS.items()}

    assert found == {name: rows for name, (_, rows) in MAPS.items()}


def test_other_maps_are_refused():
    found = {name: decoded("lwm2m+cbor", hexed(payload)) for name, payload in NO_MAPS.items()}

    assert found == dict.fromkeys(NO_MAPS, ERROR)


def test_a_map_outside_of_the_base_is_refused():
    payload = hexed("a1 83 0d 18 1a 01 18 2a")

    assert decoded("lwm2m+cbor", payload, P) == [[P, "Integer", 42]]
    for base in ("/14", "/13/27", "/13/26/2", f"{P}/0"):
        assert decoded("lwm2m+cbor", payload, base) == ERROR


N = "00 68 2f31332f32362f31"  # The name of P.
PACKS = {
    "self-described": (f"d9d9f7 81 a2 {N} 02 01", [[P, "Integer", 1]]),
    "open array and map": (f"9f bf {N} 02 01 ff ff", [[P, "Integer", 1]]),
    "an open name": ("81 a2 00 7f 64 2f31332f 64 32362f31 ff 02 01", [[P, "Integer", 1]]),
    "a label in two bytes": (f"81 a2 {N} 18 02 01", [[P, "Integer", 1]]),
    "labels as texts": ("81 a2 61 6e 68 2f31332f32362f31 61 76 01", [[P, "Integer", 1]]),
    "a link": (f"81 a2 {N} 63 766c6f 64 36363a30", [[P, "Objlnk", "66:0"]]),
    "bytes": (f"81 a2 {N} 08 43 abcdef", [[P, "Opaque", "abcdef"]]),
    "bytes as a text": (f"81 a2 {N} 08 64 71383376", ERROR),
    "a decimal fraction": (f"81 a2 {N} 02 c4 82 20 182d", [[P, "Float", 4.5]]),
    "a time as a decimal fraction": (
        f"81 a3 {N} 02 01 06 c4 82 20 1b 0000000ba43b7405",
        [[P, "Integer", 1, Decimal("5000000000.5")]],
    ),
    "an unknown label": (f"81 a3 {N} 02 01 18 63 a1 01 82 f6 a0", [[P, "Integer", 1]]),
    "an unknown negative label": (f"81 a3 {N} 02 01 29 9f 01 bf ff ff", [[P, "Integer", 1]]),
    "an unknown label with tags": (f"81 a3 {N} 02 01 18 63 c1 d8 20 f7", [[P, "Integer", 1]]),
    "a label that must be understood": (f"81 a3 {N} 02 01 62 785f 01", ERROR),
    "a label twice": (f"81 a3 {N} 02 01 02 01", ERROR),
    "a label twice in two forms": (f"81 a3 {N} 02 01 61 76 01", ERROR),
    "a boolean as a label": (f"81 a3 {N} 02 01 f5 01", ERROR),
    "a float as a label": (f"81 a3 {N} 02 01 f93c00 01", ERROR),
    "a null": (f"81 a2 {N} 02 f6", ERROR),
    "numbers with the tag of a time": (f"81 a3 {N} 02 c1 01 06 c1 05", [[P, "Integer", 1, "now+5"]]),
    "a date": (f"81 a2 {N} 02 c0 74 323031332d30332d32315432303a30343a30305a", [[P, "Integer", 1363896240]]),
    "an open break in an unknown label": (f"81 a3 {N} 02 01 18 63 ff", ERROR),
    "a pack that ends early": (f"82 a2 {N} 02 01", ERROR),
    "a record that ends early": (f"81 a3 {N} 02 01", ERROR),
    "bytes behind the pack": (f"81 a2 {N} 02 01 00", ERROR),
    "an unknown label with deep arrays": (f"81 a3 {N} 02 01 18 63" + "81" * 200 + "00", ERROR),
}


def test_packs_in_cbor():
    found = {name: decoded("senml+cbor", hexed(payload)) for name, (payload, _) in PACKS.items()}

    assert exact(found) == exact({name: rows for name, (_, rows) in PACKS.items()})
