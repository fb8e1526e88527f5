"""Values that a codec writes are the values that it reads, and no payload makes it fail in another way."""

import contextlib
import struct
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.formats import FORMATS
from devicehub.messages.lwm2m.values import DataType, ObjectLink, Value, seconds
from rig.lwm2m import decoded, vectors

pytestmark = pytest.mark.sqlite_only

quick = settings(deadline=None, database=None, max_examples=40)
SEVERAL = ("senml+json", "senml+cbor", "lwm2m+json", "lwm2m+cbor", "tlv")
TIMED = frozenset({"senml+json", "senml+cbor", "lwm2m+json"})

ids = st.sampled_from([0, 1, 255, 256, 65534]) | st.integers(0, paths.MAX_ID)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
held = {
    DataType.STRING: texts,
    DataType.CORELNK: texts,
    DataType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    DataType.UNSIGNED_INTEGER: st.integers(0, 2**64 - 1),
    DataType.FLOAT: st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(width=16).filter(lambda f: f - f == 0),
    DataType.BOOLEAN: st.booleans(),
    DataType.OPAQUE: st.binary(max_size=300),
    DataType.TIME: st.integers(-(2**63), 2**63 - 1),
    DataType.OBJLNK: st.builds(ObjectLink, st.integers(0, 65535), st.integers(0, 65535)),
}
times = st.integers(2**28, 2**40) | st.decimals(2**28, 2**33, places=3).map(
    lambda time: int(time) if time == int(time) else time
)


@st.composite
def instances(draw, *, time):
    """Draw values of one object, each with a path of its own, and all of them with a time or none."""
    object_id = draw(ids)
    kinds = draw(st.dictionaries(ids, st.sampled_from(DataType), min_size=1, max_size=6))
    found = []
    for instance in draw(st.lists(ids, min_size=1, max_size=2, unique=True)):
        for resource, kind in kinds.items():
            inner = draw(
                st.just([()])
                | st.lists(ids.map(lambda number: (number,)), min_size=1, max_size=2, unique=True)
            )
            found += [
                Value(
                    (object_id, instance, resource, *last),
                    kind,
                    draw(held[kind]),
                    draw(times) if time else None,
                )
                for last in inner
            ]
    return found


def type_of(values):
    known = {(value.path[0], value.path[2]): value.type for value in values}
    return lambda object_id, resource_id: known.get((object_id, resource_id))


def same(values):
    """Return *values* in order of their paths, with the bits of floats: -0.0 is not 0.0."""
    return sorted(
        (v.path, v.type, struct.pack(">d", v.value) if v.type == DataType.FLOAT else v.value, v.time)
        for v in values
    )


@pytest.mark.parametrize("name", SEVERAL)
@quick
@given(data=st.data())
def test_values_of_an_object_survive(name, data):
    values = data.draw(instances(time=name in TIMED and data.draw(st.booleans())))
    form, base = FORMATS[name], values[0].path[:1]

    payload = form.encode(values, base)

    assert same(form.decode(payload, base, type_of(values), 0)) == same(values)


@pytest.mark.parametrize("name", ["text", "cbor", "opaque"])
@quick
@given(data=st.data())
def test_the_value_of_a_resource_survives(name, data):
    kind = DataType.OPAQUE if name == "opaque" else data.draw(st.sampled_from(DataType))
    path = tuple(data.draw(st.lists(ids, min_size=3, max_size=4)))
    value = Value(path, kind, data.draw(held[kind]))
    form = FORMATS[name]

    payload = form.encode([value], path)

    assert same(form.decode(payload, path, type_of([value]), 0)) == same([value])


@pytest.mark.parametrize("name", FORMATS)
@quick
@given(
    payload=st.binary(max_size=40),
    kind=st.none() | st.sampled_from(DataType),
    base=st.lists(st.integers(0, 2), max_size=4).map(tuple),
)
def test_any_bytes_are_values_or_one_error(name, payload, kind, base):
    with contextlib.suppress(CodecError):
        for value in FORMATS[name].decode(payload, base, lambda *_: kind, 0):
            assert value.path[: len(base)] == base
            assert kind in (None, value.type)


numbers = (
    st.integers(-(2**70), 2**70)
    | st.decimals()
    | st.decimals(0, 10, places=40)
    | st.floats()
    | st.sampled_from([2**63, -(2**63) - 1, 2**64, 10**400, Decimal("1e-99999"), Decimal("0." + "7" * 400)])
)
anything = (
    numbers | st.none() | st.booleans() | texts | st.just("\ud800") | st.binary(max_size=9) | held["Objlnk"]
)
odd = st.builds(
    Value,
    st.lists(st.integers(-1, 70_000) | st.just(0), max_size=5).map(tuple),
    st.sampled_from([*DataType, "Float", "Number"]),
    anything,
    st.none() | numbers,
)


@pytest.mark.parametrize("name", FORMATS)
@quick
@given(values=st.lists(odd, max_size=2), shared=st.none() | numbers)
def test_any_value_is_written_as_it_is_or_refused_with_the_one_error(name, values, shared):
    if shared is not None:
        values = [value._replace(path=(9, 0, at), time=shared) for at, value in enumerate(values)]
    base = values[0].path if len(values) == 1 else (9,)
    try:
        payload = FORMATS[name].encode(values, base)
    except CodecError:
        return
    read = FORMATS[name].decode(payload, base, type_of(values), 0)
    assert [(one.path, one.time) for one in read] == [
        (one.path, None if one.time is None else seconds(one.time)) for one in values
    ]


LIMITS = {
    "a time beyond 64 bits": ("senml+cbor", Value((9, 0, 1), DataType.INTEGER, 1, 2**64)),
    "a negative time beyond 64 bits": ("lwm2m+json", Value((9, 0, 1), DataType.INTEGER, 1, -(2**63) - 1)),
    "an infinite time": ("senml+json", Value((9, 0, 1), DataType.INTEGER, 1, Decimal("inf"))),
    "a time that is a text": ("senml+json", Value((9, 0, 1), DataType.INTEGER, 1, "1700000000")),
    "a value of type Time beyond 64 bits": ("lwm2m+cbor", Value((9, 0, 1), DataType.TIME, 2**64)),
    "a time with very many digits": ("cbor", Value((9, 0, 1), DataType.TIME, Decimal("0." + "7" * 400))),
    "an id beyond 16 bits": ("tlv", Value((9, 0, 70_000), DataType.STRING, "")),
    "a negative id": ("tlv", Value((9, -1, 1), DataType.STRING, "")),
    "no type of LwM2M": ("text", Value((9, 0, 1), "Number", 1)),
    "another type": ("senml+json", Value((9, 0, 1), DataType.INTEGER, 1.5)),
    "NaN": ("senml+cbor", Value((9, 0, 1), DataType.FLOAT, float("nan"))),
    "the decimal NaN": ("senml+cbor", Value((9, 0, 1), DataType.INTEGER, Decimal("nan"))),
    "half a surrogate pair": ("lwm2m+cbor", Value((9, 0, 1), DataType.STRING, "\ud800")),
    "an object instance": ("lwm2m+json", Value((9, 0), DataType.STRING, "")),
    "outside of the base": ("tlv", Value((8, 0, 1), DataType.STRING, "")),
    "a time in TLV": ("tlv", Value((9, 0, 1), DataType.STRING, "", 2**30)),
    "a time in LwM2M CBOR": ("lwm2m+cbor", Value((9, 0, 1), DataType.STRING, "", 2**30)),
    "a date that reads as relative": ("senml+json", Value((9, 0, 1), DataType.STRING, "", 2**28 - 1)),
    "a fraction of a second in TLV": ("tlv", Value((9, 0, 1), DataType.TIME, Decimal("0.5"))),
    "a fraction of a second in text": ("text", Value((9, 0, 1), DataType.TIME, Decimal("0.5"))),
    "a number as opaque bytes": ("opaque", Value((9, 0, 1), DataType.INTEGER, 1)),
}


def test_a_value_that_a_format_cannot_hold_is_refused():
    for form, value in LIMITS.values():
        with pytest.raises(CodecError):
            FORMATS[form].encode([value], (9,))


def test_a_format_of_one_value_refuses_two():
    value = Value((9, 0, 1), DataType.OPAQUE, b"")

    for name in ("text", "cbor", "opaque"):
        with pytest.raises(CodecError):
            FORMATS[name].encode([value, value], (9, 0, 1))


def test_values_with_and_without_a_time_do_not_mix_in_lwm2m_json():
    values = [Value((9, 0, 1), DataType.INTEGER, 1, 2**30), Value((9, 0, 2), DataType.INTEGER, 1)]

    with pytest.raises(CodecError):
        FORMATS["lwm2m+json"].encode(values, (9,))


def test_a_payload_that_ends_early_is_refused_or_has_fewer_values():
    """Only TLV can end early without a fault: between two entries."""
    for vector in vectors():
        payload, expected = bytes.fromhex(vector["payload"]), vector["expected"]
        cut = [decoded(vector["format"], payload[:size], vector["base"]) for size in range(len(payload))]

        fewer = [rows for rows in cut if rows != "error"]
        assert fewer == [] or vector["format"] == "tlv", vector["name"]
        assert all(len(rows) < len(expected) for rows in fewer), vector["name"]
