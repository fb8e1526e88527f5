"""Payloads that promise or repeat much: none of them takes much more memory than its size."""

import contextlib
import time
import tracemalloc

import pytest

from devicehub.messages.json_limits import MAX_KEPT
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.formats import FORMATS
from rig.lwm2m import ERROR, decoded

pytestmark = pytest.mark.sqlite_only

SIZE = 1 << 14
MOST = 128  # Bytes of memory for each byte of a payload; the smallest values have three bytes.


def hexed(text):
    return bytes.fromhex(text.replace(" ", ""))


def fill(begin, again, end=b""):
    return begin + again * ((SIZE - len(begin) - len(end)) // len(again)) + end


HUGE = {
    "a string of 2^63 bytes": ("cbor", hexed("5b 7fffffffffffffff 00"), ERROR),
    "an array of 2^32 records": ("senml+cbor", hexed("9a ffffffff a0"), ERROR),
    "a map of 2^32 entries": ("lwm2m+cbor", hexed("ba ffffffff 00"), ERROR),
    "open arrays": ("senml+cbor", b"\x9f" * SIZE, ERROR),
    "open arrays in an unknown label": ("senml+cbor", hexed("81 a1 18 63") + b"\x9f" * SIZE, ERROR),
    "open maps": ("lwm2m+cbor", b"\xbf\x00" * (SIZE // 2), ERROR),
    "tags": ("cbor", b"\xd8\x20" * (SIZE // 2) + b"\x00", [["/9/0/1", "Integer", 0]]),
    "empty records": ("senml+cbor", b"\x9f" + b"\xa0" * SIZE + b"\xff", ERROR),
    "base records": ("senml+cbor", fill(b"\x9f", hexed("a1 24 01"), b"\xff"), []),
    "a long base name": (
        "senml+json",
        fill(b'[{"bn":"/9/0/', b"1", b'"}' + b',{"v":1}' * 1000 + b"]"),
        ERROR,
    ),
    "many digits": ("senml+json", fill(b'[{"n":"/9/0/1","v":', b"9", b"}]"), ERROR),
    "many digits behind the point": ("senml+json", fill(b'[{"n":"/9/0/1","v":0.', b"9", b"}]"), None),
    "many base digits": (
        "senml+json",
        fill(b'[{"bv":0.' + b"9" * 4000 + b',"bn":"/9/0/"},', b'{"n":"1","v":1},', b"{}]"),
        ERROR,
    ),
    "open brackets": ("senml+json", b"[" * SIZE, ERROR),
    "open objects": ("lwm2m+json", b'{"e":' * (SIZE // 5), ERROR),
    "objects": ("lwm2m+json", fill(b'{"e":[', b"{},", b"{}]}"), ERROR),
    "names": ("senml+json", b"[{" + b",".join(b'"%d":0' % n for n in range(SIZE // 8)) + b',"0":1}]', ERROR),
    "chunks": ("cbor", fill(b"\x7f", b"\x60", b"\xff"), [["/9/0/1", "String", ""]]),
    "a bignum": ("cbor", b"\xc2\x59\xff\x00" + bytes(0xFF00), ERROR),
    "instances": ("tlv", b"".join(b"\x20" + n.to_bytes(2) for n in range(SIZE // 3)), None),
    "values": ("tlv", b"".join(b"\xe0" + n.to_bytes(2) for n in range(SIZE // 3)), None),
    "a number in text": ("text", b"9" * SIZE, None),
}


@pytest.mark.parametrize("name", HUGE)
def test_memory_is_bounded_by_the_size_of_a_payload(name):
    form, payload, expected = HUGE[name]
    base = "/9/0/1" if form in ("cbor", "text") else "/9" if name == "instances" else "/9/0"

    tracemalloc.start()
    try:
        with contextlib.suppress(CodecError):
            FORMATS[form].decode(payload, paths.parse(base), lambda *_: None, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < MOST * max(len(payload), 4096)
    assert expected is None or decoded(form, payload, base) == expected


@pytest.mark.parametrize("text", ["{}x", "1.{}x", ".{}x", "1e{}x", "{0}.{0}e{0}x"])
@pytest.mark.parametrize("kind", ["Float", "Integer", "Boolean", "Opaque", "Objlnk"])
def test_a_long_text_that_is_no_number_is_refused_at_once(text, kind):
    digits = "1" * (MAX_KEPT // 4)

    began = time.process_time()
    assert decoded("text", text.format(digits), "/9/0/1", {"9/1": kind}) == ERROR
    assert time.process_time() - began < 1


def test_a_payload_above_the_limit_is_refused_unread():
    payload = bytes(MAX_KEPT + 1)

    assert {form: decoded(form, payload, "/9/0/1") for form in FORMATS} == dict.fromkeys(FORMATS, ERROR)


def test_a_payload_has_a_limited_number_of_values(monkeypatch):
    monkeypatch.setattr("devicehub.messages.lwm2m.values.MOST_VALUES", 2)
    three = bytes.fromhex("c001c002c003")

    assert len(decoded("tlv", three[:4], "/9/0")) == 2
    assert decoded("tlv", three, "/9/0") == ERROR


def test_a_payload_has_a_limited_number_of_containers(monkeypatch):
    monkeypatch.setattr("devicehub.messages.lwm2m.tlv.MOST_VALUES", 2)
    three = bytes.fromhex("800080018002")

    assert decoded("tlv", three[:4], "/9/0") == []
    assert decoded("tlv", three, "/9/0") == ERROR


@pytest.mark.parametrize("begin", [b"\x5f", b"\x7f"], ids=["bytes", "text"])
def test_small_chunks_take_little_more_memory_than_their_string(begin):
    payload = begin + (bytes([begin[0] & 0xE0 | 1]) + b"a") * SIZE + b"\xff"

    tracemalloc.start()
    try:
        [value] = FORMATS["cbor"].decode(payload, (9, 0, 1), lambda *_: None, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert value.value in ("a" * SIZE, b"a" * SIZE)
    assert peak < 4 * len(payload) + 4096
