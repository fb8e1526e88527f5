"""Values that were stored before the definition of their object, and get their type afterwards."""

from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.db import transaction

from devicehub.db.batches import Pace, Stopped
from devicehub.history import rollups
from devicehub.lwm2m import catalogue, retyping
from devicehub.lwm2m.models import (
    Definitions,
    Endpoint,
    Event,
    EventResource,
    ObjectType,
    Resource,
    ResourceType,
    ResourceValue,
)
from devicehub.lwm2m.retyping import Retyped, retype
from rig.messages import NOW, send
from rig.telemetry import DAYS, HOURS, figures, roll_up
from rig.threads import meanwhile

pytestmark = pytest.mark.django_db

OBJECT = 33000


def define(version="1.0", **types):
    """Define resources of the object, such as `r1="Float"`, in one version."""
    of, _ = ObjectType.objects.get_or_create(object_id=OBJECT, version=version, defaults={"name": "Pump"})
    for name, kind in types.items():
        ResourceType.objects.update_or_create(
            object=of, resource_id=int(name[1:]), defaults={"name": name, "type": kind}
        )
    row = Definitions.objects.get()
    row.revision += 1
    row.save()


@pytest.fixture(autouse=True)
def other_definitions():
    """Read the definitions anew in each test: after a rollback a revision has other ones."""
    catalogue.clear()
    yield
    catalogue.clear()


@pytest.fixture
def endpoint():
    return Endpoint.objects.create(device_id="urn:dev:a")


def raw(endpoint, number=1, payload=b"\x05", count=3):
    """Store *count* raw values of a resource, one each second before NOW."""
    event = Event.objects.create(device=endpoint, type="notification", timestamp=NOW, received_at=NOW)
    path = f"{OBJECT}/0/{number}"
    for after in range(count):
        at = NOW - timedelta(seconds=after)
        ResourceValue.objects.create(
            device=endpoint,
            path=path,
            type="Opaque",
            opaque=payload,
            timestamp=at,
            received_at=at,
            event=event,
        )
    return Resource.objects.create(
        device=endpoint,
        path=path,
        type="Opaque",
        opaque=payload,
        object_id=OBJECT,
        object_instance=0,
        resource_id=number,
        timestamp=NOW,
        received_at=NOW,
    )


def history():
    return [row.value for row in ResourceValue.objects.order_by("-timestamp")]


def test_latest_values_and_history_get_their_type_once(endpoint):
    raw(endpoint, 1)
    raw(endpoint, 2)
    define(r1="Integer")

    assert retype([OBJECT]) == Retyped(resources=1, values=3)
    known, unknown = Resource.objects.order_by("path")
    assert (known.type, known.value, known.resource_type.name) == ("Integer", 5, "r1")
    assert (unknown.type, unknown.value, unknown.resource_type) == ("Opaque", b"\x05", None)
    assert history().count(5) == 3
    assert retype([OBJECT]) == Retyped()


@pytest.mark.parametrize("rolled_up", [False, True])
def test_values_that_become_numbers_are_rolled_up_once(endpoint, rolled_up):
    """Raw values do not count in rollups, whose rows are each read once."""
    raw(endpoint, 1)
    if rolled_up:
        roll_up()
    define(r1="Integer")

    retype([OBJECT])
    define(r1="Float")  # They are numbers already.
    retype([OBJECT])
    roll_up()

    found = [figures(period, f"{OBJECT}/0/1", "lwm2m/urn:dev:a") for period in (HOURS, DAYS)]
    assert [sum(count for *_, count in one.values()) for one in found] == [3, 3]
    assert all(one[:3] == (5.0, 5.0, 5.0) for found_of in found for one in found_of.values())


def test_two_that_retype_at_once_count_each_value_once(endpoint, monkeypatch):
    raw(endpoint, 1)
    define(r1="Integer")
    reach = rollups.reach

    def after_another(*arguments):
        monkeypatch.setattr(rollups, "reach", reach)
        retype([OBJECT])
        reach(*arguments)

    monkeypatch.setattr(rollups, "reach", after_another)
    retype([OBJECT])
    roll_up()

    assert sum(count for *_, count in figures(DAYS, f"{OBJECT}/0/1", "lwm2m/urn:dev:a").values()) == 3


def test_values_that_do_not_fit_stay(endpoint):
    raw(endpoint, payload=b"\x05\x06\x07")
    define(r1="Integer")

    assert retype([OBJECT]) == Retyped(resources=1, values=0)
    assert Resource.objects.get().value == b"\x05\x06\x07"
    assert retype([OBJECT]) == Retyped()


def test_a_corrected_definition_retypes_what_it_fits(endpoint):
    """An import may change the type of a resource that has values."""
    raw(endpoint, count=0)
    define(r1="Integer")
    retype([OBJECT])
    define(r1="Float")

    assert retype([OBJECT]) == Retyped(resources=1, values=0)
    assert (Resource.objects.get().type, Resource.objects.get().value) == ("Float", 5.0)


def test_history_gets_its_type_if_the_latest_value_came_after_the_definition(endpoint):
    """Endpoints go on sending between the import of an object and the retyping of their values."""
    raw(endpoint)
    define(r1="Integer")
    send(endpoint, [{"n": f"/{OBJECT}/0/1", "v": 7}], at=NOW + timedelta(seconds=1))

    assert retype([OBJECT]).values == 3
    assert history() == [7, 5, 5, 5]
    assert retype([OBJECT]) == Retyped()


def test_a_new_version_of_an_object_is_that_of_endpoints_that_name_it(endpoint):
    define(r1="Integer")
    send(endpoint, {"registration": {"links": f"</{OBJECT}>;ver=2.0,</{OBJECT}/0>"}}, "status")
    send(endpoint, [{"n": f"/{OBJECT}/0/1", "v": 5}])
    define("2.0", r1="Time")

    assert retype([OBJECT]) == Retyped(resources=1, values=1)
    now = Resource.objects.get()
    assert (now.type, now.value, now.resource_type.object.version) == ("Time", 5, "2.0")


def test_a_long_history_is_changed_in_portions_the_newest_first(endpoint, monkeypatch):
    monkeypatch.setattr(retyping, "AT_ONCE", 4)
    raw(endpoint, count=11)
    ResourceValue.objects.filter(timestamp=NOW - timedelta(seconds=6)).update(opaque=b"\x01\x02\x03")
    define(r1="Integer")
    reported = []

    class UntilHalf(Pace):
        def check(self):
            if len(reported) == 2:
                raise Stopped

    with pytest.raises(Stopped):
        retype([OBJECT], UntilHalf(report=reported.append))

    assert history() == [5] * 6 + [b"\x01\x02\x03", 5] + [b"\x05"] * 3
    assert Resource.objects.get().resource_type is None
    assert retype([OBJECT]) == Retyped(resources=1, values=3)
    assert history() == [5] * 6 + [b"\x01\x02\x03"] + [5] * 4


def test_many_values_of_one_time_are_all_reached(endpoint, monkeypatch):
    monkeypatch.setattr(retyping, "AT_ONCE", 3)
    raw(endpoint, count=10)
    ResourceValue.objects.update(timestamp=NOW)
    ResourceValue.objects.filter(pk__in=ResourceValue.objects.values_list("pk")[:5]).update(
        opaque=b"\x01\x02\x03"
    )
    define(r1="Integer")

    assert retype([OBJECT]).values == 5
    assert history().count(5) == 5


def test_a_text_with_nul_stays_bytes(endpoint):
    raw(endpoint, payload=b"a\x00b")
    define(r1="String")

    assert retype([OBJECT]) == Retyped(resources=1)
    assert Resource.objects.get().value == b"a\x00b"


# --- Events of a project


def of_event(endpoint, path=f"{OBJECT}/0/1", payload=b"\x05"):
    """Store a raw value of an event of the project."""
    event = Event.objects.create(device=endpoint, type="alarm", timestamp=NOW, received_at=NOW)
    return EventResource.objects.create(
        device=endpoint, event=event, path=path, type="Opaque", opaque=payload, timestamp=NOW
    )


def test_values_of_events_get_their_type(endpoint, monkeypatch):
    """They are copies; one may have a path that no message has named."""
    monkeypatch.setattr(retyping, "KEYS", 2)
    monkeypatch.setattr(retyping, "AT_ONCE", 1)
    for _ in range(3):
        of_event(endpoint)
    unknown, misfit = of_event(endpoint, f"{OBJECT}/0/2"), of_event(endpoint, payload=b"\x05\x06\x07")
    define(r1="Integer")

    assert retype([OBJECT]) == Retyped(event_values=3)
    assert [one.value for one in EventResource.objects.order_by("pk")] == [5, 5, 5, b"\x05", b"\x05\x06\x07"]
    assert EventResource.objects.get(pk=unknown.pk).type == EventResource.objects.get(pk=misfit.pk).type
    assert retype([OBJECT]) == Retyped()


def test_values_that_get_their_type_while_they_are_rolled_up_count(endpoint, monkeypatch):
    """A step of the roll-up reads the rows before it locks what it has read."""
    raw(endpoint)
    define(r1="Integer")
    source = rollups.dialect()
    read = source.hours

    def then_retyped(*arguments):
        monkeypatch.setattr(source, "hours", read)
        found = read(*arguments)
        retype([OBJECT])
        return found

    monkeypatch.setattr(source, "hours", then_retyped)
    roll_up()

    assert sum(count for *_, count in figures(DAYS, f"{OBJECT}/0/1", "lwm2m/urn:dev:a").values()) == 3


def test_other_writers_get_their_turn_in_a_long_run(endpoint, monkeypatch):
    monkeypatch.setattr(retyping, "AT_ONCE", 2)
    monkeypatch.setattr(retyping, "REST_AFTER", 4)
    rests = []
    monkeypatch.setattr(Pace, "rest", lambda self, seconds: rests.append(seconds))
    raw(endpoint, count=10)
    define(r1="Integer")

    retype([OBJECT])

    assert rests.count(0) == 2  # The roll-up pauses too, for longer.


@pytest.mark.postgresql_only  # On SQLite a transaction has the lock of all writers.
@pytest.mark.django_db(transaction=True)
def test_it_waits_for_a_message_of_the_endpoint_before_it_locks_a_value(endpoint):
    """A message locks its endpoint, then the latest values: in another order the two could wait for each other."""
    value = raw(endpoint, count=0)
    define(r1="Integer")
    with ExitStack() as stack, transaction.atomic():
        list(Endpoint.objects.select_for_update().filter(pk=endpoint.pk))
        other = stack.enter_context(meanwhile(lambda: retype([OBJECT])))
        with pytest.raises(TimeoutError):
            other.result(0.3)
        list(Resource.objects.select_for_update(nowait=True).filter(pk=value.pk))

    assert Resource.objects.get().value == 5
