"""Groups of devices, tags and options: who is a member when, and what a later device of the same id inherits."""

from __future__ import annotations

import threading

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction

from authsvc import granting
from authsvc.models import AuditEntry, Grant
from devicehub import provisioning
from devicehub.db.batches import Pace
from devicehub.kinds.registry import registry
from devicehub.models import DeviceGroup, DeviceOptions, DeviceTag, GroupMember
from devicehub.removal import erase, preview
from fleet.models import WeatherStationDevice
from rig.cast import provision

pytestmark = pytest.mark.django_db

ONE, TWO, VALVE = "weatherstation/S-1", "weatherstation/S-2", "irrigationvalve/V-1"


@pytest.fixture
def fleet():
    provision("S-1", site="mill")
    provision("S-2", site="barn")
    provision("V-1", "irrigationvalve", site="mill")


def members(group):
    return sorted(group.members.values_list("device_key", flat=True))


def test_chosen_members(fleet):
    group = provisioning.create_group("roof", "Roof", members=[ONE])
    provisioning.change_group(group, members=[TWO, VALVE], name="Roofs")

    assert members(group) == [VALVE, TWO]
    made, first, renamed, changed = AuditEntry.objects.filter(object_key="group/roof").order_by("pk")
    assert (made.action, renamed.after) == ("group_created", {"name": "Roofs"})
    assert first.after == {"members": 1, "added": [ONE], "removed": []}
    assert changed.after == {"members": 2, "added": [VALVE, TWO], "removed": [ONE]}


@pytest.mark.parametrize(
    ("slug", "fields"),
    [
        ("Roof", {}),
        ("roof/x", {}),
        ("", {}),
        ("roof", {"types": ["nosuch"]}),
        ("roof", {"sites": "mill"}),
        ("roof", {"tags": [""]}),
        ("roof", {"members": ["weatherstation/NOSUCH"]}),
        ("roof", {"members": ["nosuch/S-1"]}),
    ],
)
def test_a_group_that_cannot_be_is_refused(fleet, slug, fields):
    with pytest.raises(ValidationError):
        provisioning.create_group(slug, "Roof", **fields)
    assert not DeviceGroup.objects.exists()


def test_a_filter_selects_devices_that_fit_each_list(fleet):
    provisioning.set_tags(ONE, ["roof", "old"])
    provisioning.set_tags(VALVE, ["roof"])

    def fits(**lists):
        group = provisioning.create_group("one", "One", **lists)
        found = members(group)
        provisioning.delete_group(group)
        full = {"types": [], "sites": [], "tags": [], **lists}
        assert provisioning.count_fitting(**full) == len(found)
        return found

    assert fits(sites=["mill"]) == [VALVE, ONE]
    assert fits(sites=["mill", "barn"], types=["weatherstation"]) == [ONE, TWO]
    assert fits(tags=["roof"]) == [VALVE, ONE]
    assert fits(tags=["roof", "new"], types=["weatherstation"]) == [ONE]
    assert fits(tags=["Roof"]) == []
    assert provisioning.count_fitting([], [], []) == 0


def test_members_follow_devices_and_tags(fleet):
    mill = provisioning.create_group("mill", "Mill", sites=["mill"])
    roof = provisioning.create_group("roof", "Roof", tags=["roof"], types=["weatherstation"])

    provision("S-3", site="mill")
    assert members(mill) == [VALVE, ONE, "weatherstation/S-3"]
    device = WeatherStationDevice.objects.get(device_id="S-1")
    provisioning.move(device, "barn")
    assert members(mill) == [VALVE, "weatherstation/S-3"]
    WeatherStationDevice.objects.filter(device_id="S-2").update(site="mill")
    WeatherStationDevice.objects.bulk_create([WeatherStationDevice(device_id="S-4", site="mill")])
    assert members(mill) == [VALVE, TWO, "weatherstation/S-3", "weatherstation/S-4"]
    device.site = "mill"
    WeatherStationDevice.objects.bulk_update([device], ["site"])
    assert ONE in members(mill)

    provisioning.set_tags(ONE, ["roof"])
    provisioning.set_tags(VALVE, ["roof"])
    assert members(roof) == [ONE]
    provisioning.set_tags(ONE, ["cellar"])
    assert members(roof) == []


def test_changes_past_our_code_follow_at_the_next_run_of_a_worker(fleet):
    mill = provisioning.create_group("mill", "Mill", sites=["mill"])
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {WeatherStationDevice._meta.db_table} SET site = 'mill' WHERE device_id = 'S-2'"
        )
        cursor.execute(f"DELETE FROM {WeatherStationDevice._meta.db_table} WHERE device_id = 'S-1'")
        cursor.execute(
            "INSERT INTO devicehub_groupmember (group_id, device_key) VALUES (%s, 'gone/X')", [mill.pk]
        )

    assert provisioning.follow_all() == 3
    assert members(mill) == [VALVE, TWO]
    assert provisioning.follow_all() == 0


def test_a_filter_that_ends_keeps_its_members_as_chosen_ones(fleet):
    group = provisioning.create_group("mill", "Mill", sites=["mill"])
    provisioning.change_group(group, sites=[])

    assert members(group) == [VALVE, ONE]
    provision("S-3", site="mill")
    assert len(members(group)) == 2


def test_devices_without_a_group_with_a_filter_cost_one_query(fleet, django_assert_num_queries):
    provisioning.create_group("roof", "Roof", members=[ONE])

    with django_assert_num_queries(1):
        provisioning.follow(WeatherStationDevice, ["S-1"])


def is_waiting() -> bool:
    """Return whether another transaction waits for a lock; on SQLite it waits for every writer."""
    if connection.vendor == "sqlite":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_a_new_filter_waits_for_devices_that_are_on_the_move(fleet):
    """Otherwise neither transaction would see the other one, and the group would have wrong members."""

    def create() -> None:
        try:
            provisioning.create_group("mill", "Mill", sites=["mill"])
        finally:
            connection.close()

    thread = threading.Thread(target=create)
    with transaction.atomic():
        provisioning.move(WeatherStationDevice.objects.get(device_id="S-1"), "barn")
        provisioning.move(WeatherStationDevice.objects.get(device_id="S-2"), "mill")
        thread.start()
        while thread.is_alive() and not is_waiting():
            thread.join(0.01)
    thread.join(10)

    assert members(DeviceGroup.objects.get(slug="mill")) == [VALVE, TWO]


def test_a_deleted_group_takes_its_grants_along(fleet):
    for delete in (provisioning.delete_group, lambda group: group.delete()):
        group = provisioning.create_group("roof", "Roof", members=[ONE])
        granting.create_grant("group:roof", ["publish"], "a")
        granting.create_grant("everyone", ["publish"], "a")
        delete(group)
        assert Grant.objects.get().subject == "everyone"
        assert not GroupMember.objects.exists()
        Grant.objects.all().delete()


def test_a_new_group_does_not_get_the_grants_of_an_earlier_one():
    Grant.objects.create(subject="group:roof", actions="publish", filter="a")

    provisioning.create_group("roof", "Roof")

    assert not Grant.objects.exists()


def additions():
    provisioning.set_tags(ONE, ["roof"])
    provisioning.set_options(ONE, expected_heartbeat=60, rate_limit="5/m")
    return provisioning.create_group("roof", "Roof", members=[ONE, TWO])


def left():
    return [model.objects.filter(device_key=ONE).count() for model in (GroupMember, DeviceTag, DeviceOptions)]


def test_a_device_created_again_inherits_nothing(fleet):
    group = additions()
    assert left() == [1, 1, 1]
    WeatherStationDevice.objects.get(device_id="S-1").delete()
    assert left() == [0, 0, 0]

    provision("S-1")
    assert members(group) == [TWO]


def test_a_device_that_sql_deleted_leaves_nothing_to_the_next(fleet):
    additions()
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {WeatherStationDevice._meta.db_table} WHERE device_id = 'S-1'")
    assert left() == [1, 1, 1]

    provision("S-1")
    assert left() == [0, 0, 0]


def test_erasing_counts_and_deletes_them(fleet):
    additions()
    kind = registry.get("weatherstation")
    counts = preview(kind, "S-1").counts()
    assert [counts[name] for name in ("memberships", "tags", "options")] == [1, 1, 1]

    done = erase(kind, "S-1", Pace()).counts()
    assert [done[name] for name in ("memberships", "tags", "options")] == [1, 1, 1]
    assert left() == [0, 0, 0]


def test_tags_are_words_and_bounded(fleet):
    assert provisioning.set_tags(ONE, [" roof", "roof", ""]) == ["roof"]
    assert provisioning.tags_of(ONE) == ["roof"]
    for key, tags in (
        (ONE, ["two words"]),
        (ONE, map(str, range(51))),
        ("weatherstation/NOSUCH", ["roof"]),
        ("x", []),
    ):
        with pytest.raises(ValidationError):
            provisioning.set_tags(key, tags)
    assert provisioning.tags_of(ONE) == ["roof"]
    entry = AuditEntry.objects.filter(object_key=ONE, action="device_changed").get()
    assert (entry.before, entry.after) == ({"tags": []}, {"tags": ["roof"]})


def test_options_are_set_and_cleared(fleet):
    assert provisioning.set_options(ONE, expected_heartbeat=60).expected_heartbeat == 60
    assert provisioning.set_options(ONE, expected_heartbeat=60, rate_limit="5/m").rate_limit == "5/m"
    assert provisioning.set_options(ONE) is None
    assert not DeviceOptions.objects.exists()
    for options in ({"expected_heartbeat": 0}, {"expected_heartbeat": 1e9}, {"rate_limit": "5/y"}):
        with pytest.raises(ValidationError):
            provisioning.set_options(ONE, **options)
    assert AuditEntry.objects.filter(object_key=ONE, action="device_changed").count() == 3
