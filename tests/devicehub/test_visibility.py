"""The limits of people: permissions, sites and roles."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from devicehub import roles, visibility
from devicehub.kinds.registry import registry
from devicehub.models import DeviceCommand, Rotation, SiteScope, default_deadline
from fleet.models import IrrigationValveDevice, WeatherStationDevice

pytestmark = pytest.mark.django_db


@pytest.fixture
def stations():
    """Return three devices: at the northern site, at the southern one, and at none."""
    return {
        site: WeatherStationDevice.objects.create(device_id=f"S-{site or 'none'}", site=site)
        for site in ("north", "south", "")
    }


def person(name: str, role: str | None = None, sites: list[str] | None = None) -> User:
    user = User.objects.create_user(name, is_staff=True)
    if role is not None:
        user.groups.add(Group.objects.get(name=role))
    if sites is not None:
        SiteScope.objects.create(user=user, sites=sites)
    return User.objects.get(pk=user.pk)


def seen(user: object, action: str = visibility.VIEW) -> set[str]:
    kind = registry.get("weatherstation")
    assert kind is not None
    return {device.site for device in visibility.devices(kind, user, action)}


def test_a_user_without_permissions_sees_no_device(stations):
    assert seen(person("eve")) == set()
    assert seen(AnonymousUser()) == set()


def test_a_viewer_sees_all_devices_and_changes_none(stations):
    viewer = person("mara", roles.VIEWER)

    assert seen(viewer) == {"north", "south", ""}
    assert seen(viewer, visibility.CHANGE) == set()


@pytest.mark.parametrize("role", [roles.VIEWER, roles.OPERATOR, roles.ADMINISTRATOR])
def test_a_limited_user_sees_exactly_their_sites(stations, role):
    assert seen(person("mara", role, ["north"])) == {"north"}


def test_a_limit_to_no_site_hides_every_device(stations):
    assert seen(person("mara", roles.OPERATOR, [])) == set()
    assert seen(person("odd", roles.OPERATOR, [""])) == set()


def test_an_inactive_user_sees_nothing(stations):
    user = person("mara", roles.OPERATOR)
    user.is_active = False

    assert seen(user) == set()


def test_rows_by_key_follow_the_devices(stations):
    for site, device in stations.items():
        DeviceCommand.objects.create(
            device_key=f"weatherstation/{device.device_id}", name=f"for {site}", deadline=default_deadline()
        )
    DeviceCommand.objects.create(device_key="toaster/T-1", name="stray", deadline=default_deadline())
    commands = DeviceCommand.objects.all()

    limited = visibility.rows(commands, person("mara", roles.OPERATOR, ["north"]))
    everybody = visibility.rows(commands, person("olga", roles.OPERATOR))
    nobody = visibility.rows(commands, person("eve"))

    assert {command.name for command in limited} == {"for north"}
    assert everybody.count() == 4
    assert nobody.count() == 0


def test_one_device_is_found_only_by_those_who_may_see_it(stations):
    mara = person("mara", roles.OPERATOR, ["north"])

    assert visibility.device("weatherstation/S-north", mara, visibility.CHANGE) == stations["north"]
    assert visibility.device("weatherstation/S-south", mara) is None
    assert visibility.device("weatherstation/S-none", mara) is None
    assert visibility.device("toaster/T-1", mara) is None


def test_a_limited_user_cannot_choose_another_site(stations):
    mara = person("mara", roles.OPERATOR, ["north"])

    visibility.check_site(mara, "north")
    for other in ("south", ""):
        with pytest.raises(PermissionDenied):
            visibility.check_site(mara, other)
    with pytest.raises(PermissionDenied):
        visibility.check_unlimited(mara)
    visibility.check_unlimited(person("olga", roles.OPERATOR))


def test_a_place_in_a_rotation_is_a_record_of_an_earlier_device():
    """Rotations are kept for a year, and the entries of the audit perhaps not as long."""
    now, key = timezone.now(), "weatherstation/S-south"
    rotation = Rotation.objects.create(name="South", started_at=now, touched_at=now)
    rotation.members.create(kind="weatherstation", device_key=key)

    assert visibility.with_records({key, "weatherstation/S-new"}) == {key}


def test_a_role_of_one_kind_sees_that_kind_alone(stations):
    IrrigationValveDevice.objects.create(device_id="V-1")
    user = User.objects.create_user("kim")
    user.user_permissions.set(roles.Permission.objects.filter(codename="view_irrigationvalvedevice"))

    assert [kind.slug for kind in visibility.kinds_of(user)] == ["irrigationvalve"]
    assert seen(user) == set()
    assert not visibility.sees_everything(user)


def test_each_migrate_sets_the_permissions_of_the_roles_again():
    viewer = Group.objects.get(name=roles.VIEWER)
    viewer.permissions.set(roles.Permission.objects.filter(codename="delete_user"))

    roles.install()

    granted = set(viewer.permissions.values_list("codename", flat=True))
    assert "view_weatherstationdevice" in granted
    assert not [name for name in granted if not name.startswith("view_")]


def test_an_operator_changes_no_broker_and_no_role_and_deletes_no_evidence():
    granted = set(Group.objects.get(name=roles.OPERATOR).permissions.values_list("codename", flat=True))

    assert {"change_weatherstationdevice", "add_grant", "view_auditentry", "view_broker"} <= granted
    assert granted.isdisjoint({"change_broker", "change_user", "change_group", "change_sitescope"})
    assert granted.isdisjoint({"delete_denial", "delete_quarantinedmessage", "delete_auditentry"})
