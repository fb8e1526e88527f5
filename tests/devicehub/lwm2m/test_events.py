"""Events of a project: recorded, composed of values that belong together, and announced after the commit."""

from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.lwm2m import composing, events, hooks
from devicehub.lwm2m.events import EventType, InvalidEvent, record
from devicehub.lwm2m.inbox import writing
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, Event, EventResource
from devicehub.lwm2m.signals import event_recorded
from devicehub.messages.lwm2m.values import DataType, ObjectLink, Value
from rig.messages import NOW, STORED, message, send
from rig.pages import marked, page
from rig.threads import meanwhile

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
CLIMATE = EventType("climate", ["3303/0/5700", "3304/0/5700"])
TEMPERATURE, HUMIDITY, PRESSURE = "/3303/0/5700", "/3304/0/5700", "/3323/0/5700"


@pytest.fixture
def station():
    return Endpoint.objects.create(device_id="station")


@pytest.fixture
def declare():
    """Return the function that declares an event type until the end of the test."""
    names = []

    def register(declared):
        names.append(declared.name)
        events.register(declared)

    yield register
    for name in names:
        events.unregister(name)


@pytest.fixture
def heard():
    """Collect the arguments of the signal."""
    found = []

    def receive(sender, endpoint, event, values, **_):
        assert sender is Endpoint
        found.append((endpoint, event, values))

    event_recorded.connect(receive)
    yield found
    event_recorded.disconnect(receive)


def measured(endpoint, after, **values):
    """Return a message with values that were measured *after* seconds from NOW."""
    named = {"temperature": TEMPERATURE, "humidity": HUMIDITY, "pressure": PRESSURE}
    pack = [
        {"n": named[name], "v": value, "t": NOW.timestamp() + after - 3600} for name, value in values.items()
    ]
    return message(endpoint, pack)


def composed(name="climate"):
    """Return the events of a type: each with its time, in seconds from the first, and its values."""
    found = []
    for event in Event.objects.filter(type=name).order_by("timestamp", "pk"):
        values = {one.path: one.value for one in event.own_values.all()}
        found.append(((event.timestamp - NOW).total_seconds() + 3600, values))
    return found


# --- Composed


def test_values_that_belong_together_make_one_event(station, declare):
    declare(CLIMATE)

    pipeline([measured(station, 0, temperature=20), measured(station, 60, humidity=40)])

    assert composed() == [(60, {"3303/0/5700": 20, "3304/0/5700": 40})]
    assert Event.objects.filter(type="notification").count() == 2


def test_values_that_are_too_far_apart_make_none(station, declare):
    declare(CLIMATE)
    pipeline([measured(station, 0, temperature=20), measured(station, 61, humidity=40)])

    assert composed() == []


def test_values_of_two_endpoints_do_not_belong_together(station, declare):
    declare(CLIMATE)
    neighbour = Endpoint.objects.create(device_id="neighbour")
    pipeline([measured(station, 0, temperature=20), measured(neighbour, 1, humidity=40)])

    assert composed() == []


def test_each_value_is_used_once(station, declare):
    declare(CLIMATE)
    pipeline([measured(station, 0, temperature=20)])
    pipeline([measured(station, 10, humidity=40), measured(station, 11, humidity=41)])
    pipeline([measured(station, 20, temperature=21)])

    assert composed() == [
        (10, {"3303/0/5700": 20, "3304/0/5700": 40}),
        (20, {"3303/0/5700": 21, "3304/0/5700": 41}),
    ]


def test_a_late_value_finds_its_own(station, declare):
    declare(CLIMATE)
    for after in (0, 300, 600):
        pipeline([measured(station, after, temperature=after)])
    pipeline([measured(station, 310, humidity=40)])
    pipeline([measured(station, 5, humidity=41)])
    pipeline([measured(station, 595, humidity=42)])

    assert composed() == [
        (5, {"3303/0/5700": 0, "3304/0/5700": 41}),
        (310, {"3303/0/5700": 300, "3304/0/5700": 40}),
        (600, {"3303/0/5700": 600, "3304/0/5700": 42}),
    ]


def test_two_values_of_one_time_are_one(station, declare):
    declare(CLIMATE)
    for value in (1, 2):
        send(station, [{"n": TEMPERATURE, "v": value}, {"n": HUMIDITY, "v": value}])

    assert composed() == [(3600, {"3303/0/5700": 1, "3304/0/5700": 1})]


def test_one_of_several_instances_of_a_resource_may_belong_to_an_event(station, declare):
    declare(EventType("power", ["3/0/7/1", HUMIDITY]))
    send(station, [{"n": "/3/0/7/0", "v": 3800}, {"n": "/3/0/7/1", "v": 5000}, {"n": HUMIDITY, "v": 40}])

    assert composed("power") == [(3600, {"3/0/7/1": 5000, "3304/0/5700": 40})]


def test_the_values_that_are_compared_at_once_are_bounded(station, declare, monkeypatch, caplog):
    monkeypatch.setattr(composing, "MOST_ROWS", 4)
    declare(CLIMATE)
    pipeline([measured(station, after, temperature=1, humidity=2) for after in (0, 100, 200)])

    assert [after for after, _ in composed()] == [0, 100]
    assert "lwm2m.not_composed" in caplog.text


def test_few_endpoints_are_compared_by_one_query(declare, monkeypatch):
    monkeypatch.setattr(composing, "GROUPS", 2)
    declare(CLIMATE)
    fleet = [Endpoint.objects.create(device_id=f"urn:dev:{number}") for number in range(5)]
    with CaptureQueriesContext(connection) as done:
        pipeline([measured(one, 0, temperature=1, humidity=2) for one in fleet])

    assert len(composed()) == 5
    assert len([query for query in done if 'FROM "lwm2m_resourcevalue"' in query["sql"]]) == 3


def test_a_whole_day_in_one_message_makes_an_event_of_each_measurement(station, declare):
    declare(CLIMATE)
    pack = [
        {"n": name, "v": number, "t": NOW.timestamp() - 300 * number}
        for number in range(1, 289)
        for name in (TEMPERATURE, HUMIDITY)
    ]
    send(station, pack)
    send(station, pack)  # The same message, once more.

    found = composed()
    assert len(found) == 288
    assert all(values["3303/0/5700"] == values["3304/0/5700"] for _, values in found)


def test_a_backlog_and_a_present_measurement_are_composed_side_by_side(station, declare):
    declare(CLIMATE)
    neighbour = Endpoint.objects.create(device_id="neighbour")
    days = 86_400
    backlog = [measured(neighbour, -after * days, temperature=after, humidity=after) for after in range(1, 4)]
    pipeline([*backlog, measured(station, 0, temperature=20, humidity=40)])

    found = (
        Event.objects.filter(type="climate").order_by("timestamp").values_list("device__device_id", flat=True)
    )
    assert list(found) == ["neighbour"] * 3 + ["station"]


def test_three_resources_must_all_be_near_each_other(station, declare):
    declare(EventType("climate", [TEMPERATURE, HUMIDITY, PRESSURE], within=10))
    pipeline([measured(station, 0, temperature=1), measured(station, 8, humidity=2)])
    pipeline([measured(station, 12, pressure=3), measured(station, 15, temperature=4)])

    assert composed() == [(15, {"3303/0/5700": 4, "3304/0/5700": 2, "3323/0/5700": 3})]


def test_any_instance_means_equal_instances(station, declare):
    declare(EventType("climate", ["3303/*/5700", "3304/*/5700"]))
    send(
        station, [{"n": "/3303/0/5700", "v": 1}, {"n": "/3303/1/5700", "v": 2}, {"n": "/3304/1/5700", "v": 3}]
    )

    assert [values for _, values in composed()] == [{"3303/1/5700": 2, "3304/1/5700": 3}]


def test_one_value_may_be_part_of_events_of_several_types(station, declare):
    declare(CLIMATE)
    declare(EventType("air", [TEMPERATURE, PRESSURE]))
    pipeline([measured(station, 0, temperature=1, humidity=2)])
    assert (len(composed()), len(composed("air"))) == (1, 0)
    pipeline([measured(station, 1, pressure=3)])

    assert (len(composed()), len(composed("air"))) == (1, 1)


@pytest.mark.postgresql_only  # On SQLite a transaction has the lock of all writers.
@pytest.mark.django_db(transaction=True)
def test_values_that_two_workers_store_at_once_make_one_event(station, declare, monkeypatch):
    """Each would miss the value of the other, which is not committed, if both compared at the same time."""
    declare(CLIMATE)
    compose = writing.compose

    with ExitStack() as stack:

        def with_another_worker(*arguments):
            monkeypatch.setattr(writing, "compose", compose)
            found = compose(*arguments)
            other = stack.enter_context(meanwhile(lambda: pipeline([measured(station, 10, humidity=40)])))
            with pytest.raises(TimeoutError):  # It waits for the commit of this one.
                other.result(0.3)
            return found

        monkeypatch.setattr(writing, "compose", with_another_worker)
        assert pipeline([measured(station, 0, temperature=20)]) == [STORED]

    assert composed() == [(10, {"3303/0/5700": 20, "3304/0/5700": 40})]


def test_nothing_is_compared_without_a_declared_type(station, monkeypatch):
    monkeypatch.setattr("devicehub.lwm2m.inbox.writing.compose", None)

    assert send(station, [{"n": TEMPERATURE, "v": 1}]) == STORED


@pytest.mark.parametrize(
    ("name", "resources", "options"),
    [
        ("send", ["3303/0/5700"], {}),
        ("Climate!", ["3303/0/5700"], {}),
        ("climate", [], {}),
        ("climate", "3303/0/5700", {}),
        ("climate", ["3303/0"], {}),
        ("climate", ["3303/0/65535"], {}),
        ("climate", ["*/0/5700"], {}),
        ("climate", ["3303/0/5700", "/3303/0/5700"], {}),
        ("climate", ["3303/*/5700", "3304/0/5700"], {}),
        ("climate", ["3303/0/5700"], {"within": -1}),
        ("climate", [f"3303/{number}/5700" for number in range(21)], {}),
    ],
)
def test_a_type_that_cannot_be_is_refused(name, resources, options):
    with pytest.raises(InvalidEvent):
        EventType(name, resources, **options)


def test_as_many_types_as_there_may_be_are_registered_again(declare, monkeypatch):
    monkeypatch.setattr(events, "MOST_TYPES", 1)
    declare(CLIMATE)
    events.register(CLIMATE)

    with pytest.raises(InvalidEvent, match="There are 1 event types already"):
        events.register(EventType("air", ["3303/0/5700"]))


def test_two_types_of_one_name_are_refused(declare):
    declare(CLIMATE)
    events.register(EventType("climate", ["3303/0/5700", "3304/0/5700"]))

    with pytest.raises(InvalidEvent, match="Two event types are called climate"):
        events.register(EventType("climate", ["3303/0/5700"]))


# --- Recorded


def test_values_are_recorded_with_the_types_of_their_resources(station):
    values = {
        "3303/0/5700": 20,
        "/3303/0/5518": NOW,
        "33000/0/1": 2**64 - 1,
        "33000/0/2/7": ObjectLink(3, 0),
        "33000/0/3": b"\x00",
        "33000/0/4": True,
        "33000/0/5": Value((0,), DataType.UNSIGNED_INTEGER, 5, time=int(NOW.timestamp()) - 5),
        "33000/0/6": Decimal("0.12345678901234567890123"),
    }
    event = record("alarm", station, values, timestamp=NOW)

    assert (event.type, event.timestamp, event.device_id) == ("alarm", NOW, station.pk)
    found = {one.path: (one.type, one.value) for one in EventResource.objects.all()}
    assert found == {
        "3303/0/5700": ("Float", 20.0),
        "3303/0/5518": ("Time", int(NOW.timestamp())),
        "33000/0/1": ("Unsigned Integer", 2**64 - 1),
        "33000/0/2/7": ("Objlnk", ObjectLink(3, 0)),
        "33000/0/3": ("Opaque", b"\x00"),
        "33000/0/4": ("Boolean", True),
        "33000/0/5": ("Unsigned Integer", 5),
        "33000/0/6": ("Float", Decimal("0.12345678901234567890123")),
    }
    times = {one.timestamp for one in EventResource.objects.all()}
    assert times == {NOW, NOW - 5 * SECOND}


def test_a_value_is_never_later_than_its_event(station):
    """Retention deletes the values of an event before the event."""
    late = Value((0,), DataType.INTEGER, 5, time=int(NOW.timestamp()) + 60)

    record("alarm", station, {"33000/0/1": late}, timestamp=NOW)
    assert EventResource.objects.get().timestamp == NOW
    coming = int(timezone.now().timestamp()) + 60
    event = record("alarm", station, {"33000/0/1": late._replace(time=coming)})
    assert event.timestamp.timestamp() == coming


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("notification", {"3303/0/5700": 1}),
        ("", {"3303/0/5700": 1}),
        ("alarm", {}),
        ("alarm", {"3303/0": 1}),
        ("alarm", {"3303/0/5700": "warm"}),
        ("alarm", {"3303/0/5700": float("nan")}),
        ("alarm", {"33000/0/1": "a\x00"}),
        ("alarm", {"33000/0/1": None}),
        ("alarm", {"33000/0/1": {}}),
        ("alarm", {"33000/0/1": 1, "/33000/0/1": 2}),
        ("alarm", {"33000/0/1": Value((0,), DataType.BOOLEAN, 5)}),
        ("alarm", {f"33000/0/{number}": 1 for number in range(1001)}),
    ],
)
def test_an_event_that_cannot_be_is_refused_as_a_whole(station, kind, values):
    with pytest.raises(InvalidEvent), transaction.atomic():
        record(kind, station, values)

    assert Event.objects.count() == EventResource.objects.count() == 0


def test_a_recorded_event_is_announced_after_the_commit(station, heard, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as callbacks:
        event = record("alarm", station, {"3303/0/5700": 20})
        assert heard == []
    for callback in callbacks:
        callback()

    assert heard == [(station, event, {"3303/0/5700": 20})]


def test_the_code_of_the_reference_works(station, capsys):
    declared, recorded, announced = marked(page("reference/lwm2m.md"), "lwm2m events")
    names = {}
    before = registry.hooks_of(KIND)
    try:
        for code in (declared, recorded, announced):
            exec(code, names)
        values = [{"n": name, "v": 1} for name in (TEMPERATURE, HUMIDITY, PRESSURE)]
        assert send(station, values) == STORED
        names["note_alarm"](station, 99.0)
    finally:
        hooks.use(KIND, before)
        events.unregister("climate")
        event_recorded.disconnect(names["log_event"])

    types = Event.objects.order_by("pk").values_list("type", flat=True)
    assert list(types) == ["notification", "climate", "overheated"]
    assert capsys.readouterr().out.count("climate") == 2


# --- Announced


def test_each_event_of_a_message_is_announced_with_its_row(station, declare, heard):
    declare(CLIMATE)
    send(station, {"registration": {"lifetime": 60}}, "status")
    send(station, [{"n": TEMPERATURE, "v": 1}, {"n": HUMIDITY, "v": 2}])

    assert [(event.type, event.detail, values) for _, event, values in heard] == [
        ("registration", "registered", {}),
        ("notification", "", {"3303/0/5700": 1, "3304/0/5700": 2}),
        ("climate", "", {"3303/0/5700": 1, "3304/0/5700": 2}),
    ]
    for endpoint, event, _ in heard:
        stored = Event.objects.get(pk=event.pk)
        assert (stored.type, stored.detail, stored.timestamp) == (event.type, event.detail, event.timestamp)
        assert (stored.received_at >= event.received_at, endpoint) == (True, station)


def test_a_composed_event_is_announced_after_the_message_that_completed_it(station, declare, heard):
    declare(CLIMATE)
    pipeline([measured(station, 0, temperature=1), measured(station, 1, humidity=2)])

    assert [event.type for _, event, _ in heard] == ["notification", "notification", "climate"]


def test_a_failing_listener_loses_nothing(station, heard, caplog):
    def fail(**_):
        raise RuntimeError("the receiver's own fault")

    event_recorded.connect(fail)
    try:
        assert send(station, [{"n": TEMPERATURE, "v": 1}]) == STORED
    finally:
        event_recorded.disconnect(fail)
    assert len(heard) == Event.objects.count() == 1
    assert "signal.receiver_failed" in caplog.text


def test_a_hook_is_called(station, heard, monkeypatch, caplog):
    called = []

    class Ours(hooks.EndpointHooks):
        def on_event(self, endpoint, event, values):
            called.append((endpoint, event.type, values))
            raise RuntimeError("the hook's own fault")

    before = registry.hooks_of(KIND)
    hooks.use(KIND, Ours)
    try:
        send(station, [{"n": TEMPERATURE, "v": 1}])
    finally:
        hooks.use(KIND, before)

    assert called == [(station, "notification", {"3303/0/5700": 1})]
    assert len(heard) == 1
    assert "hook_failed" in caplog.text


def test_events_are_not_collected_without_a_listener(station):
    items = []
    pipeline([message(station, [{"n": TEMPERATURE, "v": 1}])], notify=items.extend)

    assert items[0].own.made is None
