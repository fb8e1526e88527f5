"""Typed devices whose readings are LwM2M resources: payloads of LwM2M fill columns, and columns read as resources."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest

from devicehub import DeviceType, Reading, reading_types
from devicehub.history import resources
from devicehub.kinds.registry import registry
from devicehub.messages.lwm2m.formats import FORMATS
from devicehub.messages.lwm2m.values import DataType, Value
from rig.kinds import tables_of
from rig.messages import DUPLICATE, FAILED, NOW, PARTIAL, STORED, message_row, readings, row, send
from rig.pages import blocks, page

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

VALUES = [
    Value((3303, 0, 5700), DataType.FLOAT, 21.5),
    Value((3303, 1, 5700), DataType.FLOAT, -3.25),
    Value((3342, 0, 5501), DataType.INTEGER, 7),
    Value((3342, 0, 5500), DataType.BOOLEAN, True),
    Value((3, 0, 1), DataType.STRING, "Zephyr"),
    Value((3, 0, 11, 2), DataType.OPAQUE, b"\x00\xff"),
]
STORED_VALUES = {
    "air": 21.5, "soil": -3.25, "presses": 7, "pressed": True, "model": "Zephyr", "fault": b"\x00\xff",
}  # fmt: skip
AT = 1_772_366_000  # A second of the time of receipt's hour.


@pytest.fixture(scope="module")
def post_kind(module_database):
    """Make a type whose readings are resources, except one."""

    class GardenPost(DeviceType):
        air = Reading(unit="Cel", range=(-40, 80), lwm2m="3303/0/5700")
        soil = Reading(unit="Cel", lwm2m="3303/1/5700")
        presses = Reading(type=reading_types.INTEGER, lwm2m="3342/0/5501")
        pressed = Reading(type=reading_types.BOOLEAN, lwm2m="3342/0/5500")
        model = Reading(type=reading_types.STRING, lwm2m="3/0/1")
        fault = Reading(type=reading_types.BINARY, lwm2m="3/0/11/2")
        humidity = Reading(unit="%RH")

    with tables_of(GardenPost, module_database) as kind:
        yield kind


@pytest.fixture
def post(post_kind, db):
    return post_kind.device_model.objects.create(device_id="POST-001")


def sent(post, name, values, base=(), **options):
    form = FORMATS[name]
    return send(post, form.encode(values, base), content_type=form.media_type, **options)


@pytest.mark.parametrize("name", ["senml+json", "senml+cbor", "lwm2m+json", "lwm2m+cbor"])
def test_each_format_fills_the_columns(post, name):
    assert sent(post, name, VALUES) == STORED
    assert readings(post) == [row(**STORED_VALUES)]


@pytest.mark.parametrize("name", ["senml+json", "senml+cbor", "lwm2m+json", "lwm2m+cbor"])
def test_a_format_is_recognised_without_its_content_type(post, name):
    assert send(post, FORMATS[name].encode(VALUES, ())) == STORED
    assert readings(post) == [row(**STORED_VALUES)]


@pytest.mark.parametrize(
    ("content_type", "properties"),
    [
        ("application/vnd.oma.lwm2m+tlv", {"path": "/3303"}),
        ("application/vnd.oma.lwm2m+tlv; path=/3303", {}),
        ('Application/vnd.oma.LwM2M+TLV; q=1; path="/3303"', {}),
        ("", {"path": "/3303"}),
    ],
)
def test_tlv_has_its_path_beside_it_and_the_types_of_the_readings(post, content_type, properties):
    payload = FORMATS["tlv"].encode(VALUES[:2], (3303,))

    outcome = send(post, payload, content_type=content_type, user_properties=tuple(properties.items()))
    assert outcome == STORED
    assert readings(post) == [row(air=21.5, soil=-3.25)]


def test_tlv_without_a_path_goes_to_the_quarantine(post):
    payload = FORMATS["tlv"].encode(VALUES[:2], (3303,))

    assert send(post, payload, content_type="application/vnd.oma.lwm2m+tlv") == FAILED
    assert readings(post) == []


def test_one_value_in_plain_text_fills_its_column(post):
    path = (("path", "/3303/1/5700"),)

    assert send(post, b"-7.5", content_type="text/plain", user_properties=path) == STORED
    assert readings(post) == [row(soil=-7.5)]


def test_a_value_without_a_reading_gets_a_note(post):
    stray = Value((3304, 0, 5700), DataType.FLOAT, 40.0)

    for name in ("senml+json", "lwm2m+cbor"):
        assert sent(post, name, [VALUES[0], stray]) == PARTIAL
    assert [one.notes for one in post.messages.all()] == [["/3304/0/5700: not declared"]] * 2
    assert readings(post) == [row(air=21.5)] * 2


@pytest.mark.parametrize("name", ["senml+cbor", "lwm2m+cbor", "lwm2m+json"])
def test_a_value_of_another_type_costs_itself(post, name):
    wrong = Value((3303, 0, 5700), DataType.STRING, "warm")

    assert sent(post, name, [wrong, VALUES[2]]) == PARTIAL
    assert any("is not a number" in note for note in message_row(post).notes)
    assert readings(post) == [row(presses=7)]


def test_a_value_outside_of_the_range_costs_itself(post):
    hot = Value((3303, 0, 5700), DataType.FLOAT, 900.0)

    assert sent(post, "lwm2m+cbor", [hot, VALUES[1]]) == PARTIAL
    assert readings(post) == [row(soil=-3.25)]


@pytest.mark.parametrize("name", ["senml+json", "senml+cbor", "lwm2m+json"])
def test_times_make_rows_and_a_dated_payload_is_stored_once(post, name):
    dated = [VALUES[0]._replace(time=AT), VALUES[0]._replace(value=22.0, time=AT + 60)]

    assert [sent(post, name, dated) for _ in range(2)] == [STORED, DUPLICATE]
    assert [(one["timestamp"].timestamp(), one["air"]) for one in readings(post)] == [
        (AT, 21.5),
        (AT + 60, 22.0),
    ]


def test_a_relative_time_counts_from_the_receipt(post):
    payload = {"bn": "/3303/", "e": [{"n": "0/5700", "v": 21.5, "t": -60}]}

    assert [send(post, payload, content_type="application/vnd.oma.lwm2m+json") for _ in range(2)] == [
        STORED,
        STORED,
    ]
    assert readings(post) == [row(NOW - timedelta(seconds=60), air=21.5)] * 2


def test_names_of_readings_and_paths_stand_side_by_side(post):
    pack = [{"bn": "/3303/0/", "n": "5700", "v": 21.5}, {"bn": "urn:dev:post:", "n": "humidity", "v": 40}]

    assert send(post, pack) == STORED
    assert readings(post) == [row(air=21.5, humidity=40.0)]


def test_own_forms_are_read_as_before(post):
    assert send(post, {"air": 20.0, "humidity": 41}) == STORED
    assert send(post, [{"air": 19.0}]) == STORED
    assert readings(post) == [row(air=20.0, humidity=41.0), row(air=19.0)]


def test_a_type_without_resources_does_not_read_paths(probe):
    assert registry.of(probe).resources is None
    assert send(probe, [{"n": "/3303/0/5700", "v": 21.5}]) == FAILED


def test_too_many_times_are_refused(post, settings):
    settings.DEVICEHUB_MAX_SAMPLES = 2
    dated = [VALUES[0]._replace(time=AT + second) for second in range(3)]

    assert sent(post, "lwm2m+json", dated) == FAILED
    assert "more than 2 samples" in message_row(post).processing_error


def test_readings_are_read_as_resources(post, post_kind):
    sent(post, "senml+cbor", [value._replace(time=AT) for value in VALUES])
    sent(post, "senml+json", [VALUES[0]._replace(value=30.5, time=Decimal("1772366001.25"))])
    found = resources.of_device(post_kind, post.pk)

    assert {path: one.measured_at.timestamp() for path, one in found.items()} == {
        "3303/0/5700": AT + 1.25,
        "3303/1/5700": AT, "3342/0/5501": AT, "3342/0/5500": AT, "3/0/1": AT, "3/0/11/2": AT,
    }  # fmt: skip
    expected = [VALUES[0]._replace(value=30.5, time=Decimal("1772366001.25"))]
    expected += [value._replace(time=AT) for value in VALUES[1:]]
    for name in ("senml+json", "senml+cbor"):
        payload = resources.encoded(post_kind, found, name)
        types = {(value.path[0], value.path[2]): value.type for value in VALUES}
        assert FORMATS[name].decode(payload, (), lambda one, other: types[one, other]) == expected  # noqa: B023


def test_the_page_reads_them_in_code(post, capsys):
    sent(post, "senml+json", [value._replace(time=AT) for value in VALUES])
    (example,) = blocks(page("reference/topics-and-payloads.md"), "python", "readings as resources")

    names = {}
    exec(example, names)

    assert capsys.readouterr().out == "21.5 2026-03-01 11:53:20+00:00\n"
    assert json.loads(names["pack"])[0] == {"n": "/3303/0/5700", "v": 21.5, "t": AT}


def test_a_type_without_resources_has_none(probe, probe_kind):
    assert resources.of_device(probe_kind, probe.pk) == {}
