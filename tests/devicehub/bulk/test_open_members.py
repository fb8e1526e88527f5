"""The members of a rotation that a run concerns. They are found without their states, which take longer."""

from __future__ import annotations

import pytest
from django.utils import timezone

from authsvc.credentials import UNTIL_USED
from authsvc.models import LastLogin
from devicehub import provisioning
from devicehub.bulk import rotations
from devicehub.kinds.registry import Kind
from devicehub.models import Rotation
from fleet.models import WeatherStationDevice
from rig.cast import provision

pytestmark = pytest.mark.django_db
Stations = WeatherStationDevice.objects


@pytest.fixture
def rotation(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> Rotation:
    """Return a rotation of seven stations, of which six were rotated."""
    monkeypatch.setattr(rotations, "BATCH", 6)
    for number in range(7):
        provision(f"R-{number}")
    rotation = rotations.start("spring", [(kind, Stations.all())], until=UNTIL_USED)
    next(rotations.issue(rotation, rotation.members.all()))
    return rotation


def log_in(device_id: str, *, mark: str = "") -> None:
    now, key = timezone.now(), f"weatherstation/{device_id}"
    LastLogin.objects.create(key=key, first_at=now, at=now, current_at=now, current_mark=mark)


def test_they_are_those_of_four_states(rotation: Rotation) -> None:
    log_in("R-1", mark=Stations.get(device_id="R-1").password_mark)
    log_in("R-2")
    provisioning.revoke(Stations.get(device_id="R-3"))
    provisioning.end_overlap(Stations.get(device_id="R-4"))
    log_in("R-4")
    members = rotation.members.all()
    members.filter(device_key="weatherstation/R-5").update(end="finished")
    states = dict(rotations.with_state(members).values_list("pk", "state"))

    found = {states.pop(pk) for pk in rotations.open_members(members).values_list("pk", flat=True)}

    assert found == {"waiting", "old", "without_old", "never"}
    assert set(states.values()) == {"confirmed", "changed", "ended"}


def test_a_statement_looks_a_device_up_at_one_place(rotation: Rotation) -> None:
    statement = str(rotations.open_members(rotation.members.all()).query)

    assert statement.count(Stations.model._meta.db_table) == 1
