"""Messages of endpoints through the pipeline: values, events, registrations and presence."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from devicehub.ingest.pipeline import pipeline
from devicehub.lwm2m.models import Endpoint, Event, Resource, ResourceValue
from devicehub.messages.lwm2m.formats import FORMATS
from devicehub.messages.lwm2m.values import DataType, ObjectLink, Value
from rig.messages import FAILED, HOUR, NOW, PARTIAL, STORED, fresh, message, message_row, send
from rig.pages import marked, page

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

EVERY_TYPE = [
    Value((3442, 0, 110), DataType.STRING, "Grüße"),
    Value((3442, 0, 120), DataType.INTEGER, -(2**63)),
    Value((3442, 0, 125), DataType.UNSIGNED_INTEGER, 2**64 - 1),
    Value((3442, 0, 130), DataType.FLOAT, 0.1),
    Value((3442, 0, 140), DataType.BOOLEAN, True),
    Value((3442, 0, 150), DataType.OPAQUE, b"\x00\xff"),
    Value((3442, 0, 160), DataType.TIME, -5_000_000_000),
    Value((3442, 0, 170), DataType.OBJLNK, ObjectLink(3, 0)),
    Value((3442, 0, 180), DataType.CORELNK, "</3303/0>"),
    Value((3442, 0, 1120, 0), DataType.INTEGER, 1),
    Value((3442, 0, 1120, 5), DataType.INTEGER, 2**63 - 1),
]


@pytest.fixture
def endpoint():
    return Endpoint.objects.create(device_id="urn:dev:a")


def status(endpoint, content, **options):
    return send(endpoint, content, "status", **options)


def stored(endpoint):
    return {one.path: one.value for one in Resource.objects.filter(device=endpoint)}


@pytest.mark.parametrize("name", ["senml+json", "senml+cbor", "lwm2m+json", "lwm2m+cbor", "tlv"])
def test_each_type_is_kept_exactly(endpoint, name):
    values = EVERY_TYPE
    if name == "lwm2m+json":  # It has no number above 2^63.
        values = [value for value in values if value.type is not DataType.UNSIGNED_INTEGER]
    form = FORMATS[name]
    payload = form.encode(values, (3442, 0))
    outcome = send(endpoint, payload, content_type=form.media_type, user_properties=(("path", "/3442/0"),))

    assert outcome == STORED
    expected = {"/".join(map(str, value.path)): value.value for value in values}
    assert stored(endpoint) == expected
    assert {one.path: one.value for one in ResourceValue.objects.all()} == expected
    event = Event.objects.get()
    assert (event.type, event.device_id, event.timestamp) == ("notification", endpoint.pk, NOW)
    assert event.values().count() == len(values)


@pytest.mark.parametrize(
    "number",
    [
        -0.0,
        5e-324,
        -2.2250738585072014e-308,
        1.7976931348623157e308,
        2**63,
        2**64 - 1,
        Decimal("0." + "1" * 400),
    ],
    ids=lambda number: str(number)[:12],
)
def test_numbers_at_the_ends_of_their_types_are_kept_exactly(endpoint, number):
    """A column of floats of SQLite has no negative zero, and two equal numbers may differ."""
    payload = f'[{{"n":"/33000/0/1","v":{number}}}]'.encode()

    assert send(endpoint, payload, content_type="application/senml+json") == STORED
    for model in (Resource, ResourceValue):
        one = model.objects.get()
        assert (repr(one.value), one.number) == (repr(number), float(number))


@pytest.mark.parametrize("name", ["senml+json", "senml+cbor", "lwm2m+json", "lwm2m+cbor"])
def test_a_format_is_recognised_without_its_content_type(endpoint, name):
    payload = FORMATS[name].encode([Value((3303, 0, 5700), DataType.FLOAT, 21.5)], ())

    assert send(endpoint, payload) == STORED
    assert stored(endpoint) == {"3303/0/5700": 21.5}


def test_a_value_of_another_type_is_kept_with_a_note(endpoint):
    payload = [{"n": "/3303/0/5700", "vs": "warm"}, {"n": "/3303/0/5701", "vs": "Cel"}]

    assert send(endpoint, payload) == PARTIAL
    assert stored(endpoint) == {"3303/0/5700": "warm", "3303/0/5701": "Cel"}
    [note] = message_row(endpoint).notes
    assert "/3303/0/5700: is not of type Float" in note


def test_an_unknown_object_is_stored_raw(endpoint):
    payload = bytes.fromhex("e8164408" + "4038800000000000")

    outcome = send(
        endpoint,
        payload,
        content_type="application/vnd.oma.lwm2m+tlv",
        user_properties=(("path", "/34/0"),),
    )
    assert outcome == STORED
    [one] = Resource.objects.all()
    assert (one.path, one.type, one.value, one.resource_type) == (
        "34/0/5700",
        "Opaque",
        bytes.fromhex("4038800000000000"),
        None,
    )


def test_late_values_join_the_history_and_do_not_replace_the_latest(endpoint):
    send(endpoint, [{"n": "/3303/0/5700", "v": 22, "t": (NOW).timestamp()}])
    send(endpoint, [{"n": "/3303/0/5700", "v": 18, "t": (NOW - HOUR).timestamp()}])

    assert stored(endpoint) == {"3303/0/5700": 22.0}
    assert sorted(one.value for one in ResourceValue.objects.all()) == [18.0, 22.0]


def test_an_event_has_the_values_of_its_message_alone(endpoint):
    """One message covers an hour, the next is of a moment in it, and the last is of another endpoint."""
    other = Endpoint.objects.create(device_id="urn:dev:b")
    of_an_hour = [
        {"bn": "/3303/0/", "n": "5700", "v": 18, "t": (NOW - HOUR).timestamp()},
        {"n": "5700", "v": 22, "t": NOW.timestamp()},
        {"n": "5701", "vs": "Cel", "t": (NOW - HOUR / 2).timestamp()},
    ]
    of_a_moment = [{"n": "/3303/0/5700", "v": 20, "t": (NOW - HOUR / 2).timestamp()}]
    for who, records in ((endpoint, of_an_hour), (endpoint, of_a_moment), (other, of_a_moment)):
        assert send(who, records) == STORED

    first, second, third = Event.objects.order_by("pk")
    assert (first.earliest, first.timestamp) == (NOW - HOUR, NOW)
    assert sorted(str(one.value) for one in first.values()) == ["18.0", "22.0", "Cel"]
    assert (second.earliest, second.timestamp) == (None, NOW - HOUR / 2)
    assert [one.value for one in second.values()] == [one.value for one in third.values()] == [20.0]
    if connection.vendor == "sqlite":
        statement, values = first.values().query.sql_with_params()
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            plan = " ".join(row[-1] for row in cursor.fetchall())
        assert "lwm2m_value_history (device_id=? AND path=? AND timestamp>? AND timestamp<?)" in plan


def test_a_payload_with_its_own_time_is_stored_once(endpoint):
    payload = [{"n": "/3303/0/5700", "v": 22, "t": NOW.timestamp()}]

    assert [send(endpoint, payload), send(endpoint, payload)] == ["stored", "duplicate"]
    relative = [{"n": "/3303/0/5700", "v": 22, "t": -5}]
    assert [send(endpoint, relative), send(endpoint, relative)] == ["stored", "stored"]
    times = set(ResourceValue.objects.values_list("timestamp", flat=True))
    assert times == {NOW, NOW - timedelta(seconds=5)}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"\xff\xff", "not SenML"), (b"[{", "senml+json"), (b'{"e": [{"n": "/3/0/1"}]}', "lwm2m+json")],
)
def test_an_unreadable_payload_goes_to_the_quarantine(endpoint, payload, reason):
    assert send(endpoint, payload) == FAILED
    row = message_row(endpoint).quarantined
    assert (row.reason, reason in row.detail) == ("not_a_reading", True), row.detail
    assert bytes(row.payload) == payload


def test_a_registration_is_kept(endpoint):
    outcome = status(
        endpoint,
        {
            "registration": {
                "lifetime": 300,
                "version": "1.1",
                "binding": "UQ",
                "links": '</>;rt="oma.lwm2m",</3/0>,</3303>;ver=1.1,</3303/0>,</3303/1>',
            }
        },
    )

    assert outcome == STORED
    now = fresh(endpoint)
    assert (now.registered, now.lifetime, now.lwm2m_version, now.binding) == (True, 300, "1.1", "UQ")
    assert (now.queue_mode, now.sleeping, now.object_versions) == (True, False, {"3303": "1.1"})
    assert now.object_links == ["/3/0", "/3303/0", "/3303/1"]
    assert (now.status, now.connected, now.last_registration) == ("online", True, NOW)
    assert now.registration_ends_at == NOW + timedelta(seconds=300)
    event = Event.objects.get()
    assert (event.type, event.detail) == ("registration", "registered")


def test_the_statuses_of_the_reference_are_stored(endpoint):
    shown = marked(page("reference/lwm2m.md"), "lwm2m status")

    assert [status(endpoint, content.encode()) for content in shown] == [STORED] * 4
    details = Event.objects.order_by("pk").values_list("detail", flat=True)
    assert list(details) == ["registered", "updated", "deregistered", "sleeping"]
    now = fresh(endpoint)
    assert (now.registered, now.sleeping, now.lifetime, now.object_versions) == (
        False,
        True,
        300,
        {"3303": "1.1"},
    )


def registration(endpoint, word, identifier, began, **options):
    content = {word: {"id": identifier, "at": round(began.timestamp() * 1000)}}
    return status(endpoint, content, **options)


@pytest.mark.parametrize("order", ["old end first", "new start first"])
def test_the_end_of_a_replaced_registration_changes_nothing(endpoint, order):
    first, second = NOW - HOUR, NOW - timedelta(seconds=1)
    registration(endpoint, "registration", "a", first)
    messages = [("deregistration", "a", first), ("registration", "b", second)]
    for one in messages if order == "old end first" else reversed(messages):
        registration(endpoint, *one)

    now = fresh(endpoint)
    assert (now.registered, now.registration_id, now.connected, now.status) == (True, "b", True, "online")
    registration(endpoint, "deregistration", "b", second, at=NOW + HOUR)
    now = fresh(endpoint)
    assert (now.registered, now.connected, now.status) == (False, False, "offline")


def test_a_registration_of_the_future_does_not_keep_out_later_ones(endpoint):
    registration(endpoint, "registration", "a", NOW + 24 * HOUR)
    registration(endpoint, "registration", "b", NOW + timedelta(seconds=1), at=NOW + timedelta(seconds=2))

    assert fresh(endpoint).registration_id == "b"


def test_the_end_of_a_registration_of_the_future_does_not_keep_out_later_ones(endpoint):
    registration(endpoint, "registration", "a", NOW)
    registration(endpoint, "deregistration", "a", NOW + 24 * HOUR)
    assert not fresh(endpoint).registered
    registration(endpoint, "registration", "b", NOW + timedelta(seconds=1), at=NOW + timedelta(seconds=2))

    assert fresh(endpoint).registered


def test_an_update_changes_the_members_that_it_names(endpoint):
    links = "</3/0>,</3303/0>;ver=1.1"
    status(endpoint, {"registration": {"lifetime": 300, "version": "1.1", "binding": "U", "links": links}})
    status(endpoint, {"update": {"lifetime": 600}}, at=NOW + HOUR)

    now = fresh(endpoint)
    assert (now.lifetime, now.lwm2m_version, now.object_versions) == (600, "1.1", {"3303": "1.1"})
    assert now.last_registration == NOW + HOUR
    assert list(Event.objects.values_list("detail", flat=True)) == ["updated", "registered"]


def test_an_endpoint_sleeps_until_it_sends(endpoint):
    status(endpoint, {"registration": {"binding": "UQ"}})
    status(endpoint, {"awake": False})
    assert fresh(endpoint).sleeping
    send(endpoint, [{"n": "/3303/0/5700", "v": 22}], at=NOW + HOUR)
    assert not fresh(endpoint).sleeping


def test_a_member_that_cannot_be_used_is_noted(endpoint):
    content = {"registration": {"lifetime": -1, "links": "</3/0", "colour": "red", "version": "1.1"}}

    assert status(endpoint, content) == PARTIAL
    notes = message_row(endpoint).notes
    assert [note.partition(":")[0] for note in notes] == ["lifetime", "links", "colour"]
    assert fresh(endpoint).lwm2m_version == "1.1"


def test_other_statuses_are_those_of_any_device(endpoint):
    assert status(endpoint, {"battery_level": 50}) == STORED
    assert status(endpoint, b"offline") == STORED
    now = fresh(endpoint)
    assert (now.battery_level, now.status) == (50, "offline")
    assert status(endpoint, {"registration": 7}) == FAILED


def test_nodes_of_a_leshan_server_are_values(endpoint):
    node = {"kind": "singleResource", "id": 5700, "type": "OPAQUE", "value": "4038800000000000"}
    payload = {"event": "send", "values": {"/3303/0/5700": node}}

    assert send(endpoint, payload, content_type="application/vnd.devicehub.leshan+json") == STORED
    assert stored(endpoint) == {"3303/0/5700": 24.5}
    assert Event.objects.get().type == "send"


def test_a_number_with_more_digits_than_a_float_is_kept(endpoint):
    assert send(endpoint, b'[{"n": "/33000/0/1", "v": 0.12345678901234567890123}]') == STORED
    assert stored(endpoint) == {"33000/0/1": Decimal("0.12345678901234567890123")}


@pytest.mark.sqlite_first
def test_a_batch_takes_as_many_queries_as_one_message(db):
    """Definitions are compared once for a batch, and endpoints are not loaded for values alone."""
    fleet = [Endpoint.objects.create(device_id=f"urn:dev:{number}") for number in range(20)]
    batches = [
        [message(one, [{"n": "/3303/0/5700", "v": 21.5}]) for one in some] for some in (fleet[:1], fleet)
    ]
    pipeline(batches[0])  # It reads the definitions.
    counted = []
    for batch in batches:
        with CaptureQueriesContext(connection) as queries:
            assert set(pipeline(batch)) == {STORED}
        counted.append(len(queries))

    assert counted[0] == counted[1] <= 12
