"""A new device inherits nothing from a device of the same id that SQL deleted, in whatever way it is created."""

import json
from datetime import UTC, datetime

import pytest
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connection, transaction
from django.db.models import Value
from django.db.models.functions import Concat, Replace
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils import timezone

from authsvc.models import Denial, Grant, LastLogin, PolicyRevision
from devicehub import provisioning
from devicehub.db.batches import Pace
from devicehub.kinds.registry import registry
from devicehub.models import DeviceCommand, QuarantinedMessage, RemovalRequest, RetainedTopic, Rollup
from devicehub.removal import inheritance, requests
from devicehub.simulation import logins
from fleet.models import WeatherStationDevice

KEY = "weatherstation/STATION-001"
STATION = {"device_id": "STATION-001"}
Devices = WeatherStationDevice.objects


def leave(key=KEY):
    """Create the rows of *key* that a device would inherit, and rows of its history."""
    Grant.objects.create(subject=f"key:{key}", actions="all", filter="secret/#")
    DeviceCommand.objects.create(device_key=key, name="reboot")
    RemovalRequest.objects.create(device_key=key, requested_at=timezone.now())
    LastLogin.objects.create(key=key, first_at=timezone.now(), at=timezone.now())
    Rollup.objects.create(
        device_key=key,
        name="temperature",
        period="hour",
        start=timezone.now(),
        low=1,
        high=1,
        mean=1,
        count=1,
    )
    DeviceCommand.objects.create(device_key=key, name="reboot", state="answered", due_at=None)
    QuarantinedMessage.objects.create(
        reason="not_json", topic="x", payload=b"x", device_key=key, received_at=timezone.now()
    )
    Denial.objects.create(
        dialect="emqx", action="publish", topic=key, reason="no_grant", principal=key,
        first_at=timezone.now(), last_at=timezone.now(),
    )  # fmt: skip


def inherited(key=KEY):
    """Return the numbers of rows that a device of *key* would inherit."""
    return (
        Grant.objects.filter(subject=f"key:{key}").count(),
        DeviceCommand.objects.filter(device_key=key).exclude(due_at=None).count(),
        RemovalRequest.objects.filter(device_key=key).count(),
        Rollup.objects.filter(device_key=key).count(),
        LastLogin.objects.filter(key=key).count(),
    )


ALL, NOTHING = (1, 1, 1, 1, 1), (0, 0, 0, 0, 0)


@pytest.fixture
def left(db):
    """Create a device and delete it by SQL; return its neighbour, which is still there. A valve had the same id."""
    station = Devices.create(**STATION)
    neighbour = Devices.create(device_id="STATION-002")
    for key in (
        KEY,
        "weatherstation/STATION-002",
        "irrigationvalve/STATION-001",
        "weatherstation/station-001",
    ):
        leave(key)
    Devices.filter(pk=station.pk)._raw_delete(DEFAULT_DB_ALIAS)
    assert inherited() == ALL
    return neighbour


def move(device_id="STATION-009", **ways):
    return Devices.create(device_id=device_id, **ways)


WAYS = {
    "create": lambda: Devices.create(**STATION),
    "save": lambda: WeatherStationDevice(**STATION).save(),
    "save with a primary key": lambda: WeatherStationDevice(pk=77, **STATION).save(force_insert=True),
    "save disabled": lambda: WeatherStationDevice(**STATION, is_active=False).save(),
    "save_base": lambda: WeatherStationDevice(**STATION).save_base(),
    "get_or_create": lambda: Devices.get_or_create(**STATION),
    "update_or_create": lambda: Devices.update_or_create(**STATION, defaults={"name": "x"}),
    "bulk_create": lambda: Devices.bulk_create([WeatherStationDevice(**STATION)]),
    "bulk_create of an iterator": lambda: Devices.bulk_create(WeatherStationDevice(**STATION) for _ in "1"),
    "bulk_create, ignoring": lambda: Devices.bulk_create(
        [WeatherStationDevice(**STATION), WeatherStationDevice(device_id="STATION-002")], ignore_conflicts=True
    ),
    "bulk_create, updating": lambda: Devices.bulk_create(
        [WeatherStationDevice(**STATION), WeatherStationDevice(device_id="STATION-002")],
        update_conflicts=True, unique_fields=["device_id"], update_fields=["name"],
    ),
    "provisioning": lambda: provisioning.create(registry.get("weatherstation"), "STATION-001"),
    "simulation": lambda: logins.issue_logins(registry.get("weatherstation"), "STATION-", 1),
    "a new id by save": lambda: (
        device := move(), setattr(device, "device_id", "STATION-001"), device.save(),
    ),
    "a new id by save of that field": lambda: (
        device := move(), setattr(device, "device_id", "STATION-001"), device.save(update_fields=["device_id"]),
    ),
    "a new id by update": lambda: (move(), Devices.filter(device_id="STATION-009").update(**STATION)),
    "a new id by an expression": lambda: (
        move("STAT-001"),
        Devices.update(device_id=Replace("device_id", Value("STAT-"), Value("STATION-"))),
    ),
    "a new id by bulk_update": lambda: (
        device := move(), setattr(device, "device_id", "STATION-001"), Devices.bulk_update([device], ["device_id"]),
    ),
    "a new id by bulk_create": lambda: (
        move(mqtt_username="u"),
        Devices.bulk_create(
            [WeatherStationDevice(**STATION, mqtt_username="u")],
            update_conflicts=True, unique_fields=["mqtt_username"], update_fields=["device_id"],
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("begin", WAYS.values(), ids=WAYS)
def test_it_inherits_nothing_whatever_way_it_begins(left, begin):
    begin()

    assert Devices.filter(**STATION).exists()
    assert inherited() == NOTHING
    for key in ("weatherstation/STATION-002", "irrigationvalve/STATION-001", "weatherstation/station-001"):
        assert inherited(key) == ALL
    assert DeviceCommand.objects.filter(device_key=KEY, state="answered").exists()  # History stays.
    assert QuarantinedMessage.objects.filter(device_key=KEY).exists()
    assert Denial.objects.filter(principal=KEY).exists()


def test_a_broker_clears_what_it_retains_of_the_one_before(left):
    Devices.create(**STATION)

    topics = set(RetainedTopic.objects.values_list("topic", flat=True))
    assert topics == {f"things/{KEY}/{about}" for about in ("data", "status", "cmd", "reply")}
    since = RetainedTopic.objects.values_list("requested_at", flat=True).first()
    assert since <= Devices.get(**STATION).created_at  # So these topics do not count as its own.


KEEPING = {
    "save": lambda device: device.save(),
    "save of another field": lambda device: device.save(update_fields=["name"]),
    "get_or_create": lambda device: Devices.get_or_create(device_id=device.device_id),
    "update_or_create": lambda device: Devices.update_or_create(
        device_id=device.device_id, defaults={"name": "x"}
    ),
    "update": lambda device: Devices.update(name="x"),
    "update to the same id": lambda device: Devices.filter(pk=device.pk).update(device_id=device.device_id),
    "ignored by bulk_create": lambda device: Devices.bulk_create(
        [WeatherStationDevice(device_id=device.device_id)], ignore_conflicts=True
    ),
    "updated by bulk_create": lambda device: Devices.bulk_create(
        [device], update_conflicts=True, unique_fields=["pk"], update_fields=["name"]
    ),
    "a second one of its id": lambda device: refused(lambda: Devices.create(device_id=device.device_id)),
    "a second one in bulk": lambda device: refused(
        lambda: Devices.bulk_create([WeatherStationDevice(device_id=device.device_id)])
    ),
    "a copy in another database": lambda device: inheritance.check_names(
        WeatherStationDevice, {device.device_id}, set(), "archive"
    ),
}


def test_a_deletion_in_another_database_deletes_nothing_here(left):
    """A copy there may have the same primary key."""
    inheritance.before_delete(WeatherStationDevice, left, using="archive")

    assert inherited("weatherstation/STATION-002") == ALL


def refused(work):
    with pytest.raises(IntegrityError), transaction.atomic():
        work()


@pytest.mark.parametrize("change", KEEPING.values(), ids=KEEPING)
def test_a_device_that_exists_keeps_what_it_has(left, change):
    change(left)

    assert inherited("weatherstation/STATION-002") == ALL
    assert not RetainedTopic.objects.exists()


@pytest.mark.sqlite_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "begin",
    [
        lambda taken: Devices.create(**STATION, mqtt_username=taken),
        lambda taken: Devices.bulk_create([WeatherStationDevice(**STATION, mqtt_username=taken)]),
    ],
    ids=["create", "bulk_create"],
)
def test_a_device_that_could_not_begin_cleared_nothing(begin):
    """Both happen in one transaction, also if the caller has none."""
    Devices.create(device_id="STATION-002", mqtt_username="taken")
    leave()

    with pytest.raises(IntegrityError):
        begin("taken")

    assert inherited() == ALL


def test_a_fixture_restores_devices_with_their_grants(left, tmp_path):
    """The order does not matter: a restored deny must not be lost because its device is restored later."""
    entry = {"model": "fleet.weatherstationdevice", "pk": 9, "fields": {**STATION, "name": "restored"}}
    for name in ("created_at", "updated_at"):
        entry["fields"][name] = datetime(2026, 3, 1, tzinfo=UTC).isoformat()
    (tmp_path / "fleet.json").write_text(json.dumps([entry]))

    call_command("loaddata", str(tmp_path / "fleet.json"), verbosity=0)

    assert Devices.get(**STATION).name == "restored"
    assert inherited() == ALL


def test_beginning_with_nothing_left_writes_nothing_more(db):
    """Otherwise each new device would raise the policy revision, and every process would read all grants again."""
    leave("weatherstation/STATION-002")
    revision = PolicyRevision.objects.get().revision

    with CaptureQueriesContext(connection) as captured:
        Devices.create(**STATION)
        Devices.bulk_create([WeatherStationDevice(device_id="STATION-003")])

    statements = [query["sql"].split()[0] for query in captured]
    assert [word for word in statements if word in ("INSERT", "UPDATE", "DELETE")] == ["INSERT", "INSERT"]
    assert PolicyRevision.objects.get().revision == revision


@pytest.mark.sqlite_only
def test_many_at_once(left):
    Devices.bulk_create(WeatherStationDevice(device_id=f"STATION-{n:03d}") for n in (1, *range(3, 1003)))

    assert inherited() == NOTHING


@pytest.mark.sqlite_only
@isolate_apps("fleet")
def test_a_proxy_is_a_device_like_others(left):
    class Station(WeatherStationDevice):
        class Meta:
            app_label = "fleet"
            proxy = True

    Station.objects.create(**STATION)

    assert inherited() == NOTHING


@pytest.mark.sqlite_only
def test_a_removal_requested_before_does_not_reach_it(left):
    """Workers read the requests once, and may work on one of them minutes later."""
    [stale] = RemovalRequest.objects.filter(device_key=KEY)
    Devices.create(**STATION, is_active=False)

    assert requests.remove(stale, Pace()) == 0
    assert Devices.filter(**STATION).exists()


@pytest.mark.sqlite_only
def test_an_expression_with_other_text_is_a_new_id_too(left):
    move("STATION-00")

    Devices.filter(device_id="STATION-00").update(device_id=Concat("device_id", Value("1")))

    assert inherited() == NOTHING
