"""Rotations of a fleet: the file, its progress, its two ends, and runs that break off."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from authsvc.core import passwords
from authsvc.core.access import Client, Decision, LoginQuestion, Principal, Reason, Secret, Verdict
from authsvc.credentials import UNTIL_USED
from authsvc.logins import renewals
from authsvc.models import AuditEntry, LastLogin
from devicehub import provisioning, roles, visibility
from devicehub.bulk import rotations
from devicehub.directory import LATE, DeviceDirectory
from devicehub.models import Rotation
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.cast import provision
from rig.people import person

pytestmark = pytest.mark.django_db
Stations = WeatherStationDevice.objects


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(rotations, "BATCH", 3)


@pytest.fixture
def cast(db):
    """Return seven stations with credentials, by device id."""
    found = [provision(f"R-{number}", site="north") for number in range(7)]
    return {member.device.device_id: member for member in found}


def begin(kind, until=UNTIL_USED, **options) -> Rotation:
    return rotations.start("spring", [(kind, Stations.all())], until=until, **options)


def issue(rotation) -> dict[str, dict[str, object]]:
    return {d["device_id"]: d for batch in rotations.issue(rotation, rotation.members.all()) for d in batch}


def accepts(device_id: str, password: str) -> bool:
    """Return whether the service would accept *password* now: the current one, or the previous during its overlap."""
    device = Stations.get(device_id=device_id)
    stored = [device.mqtt_password_hash]
    if device.previous_valid_until and device.previous_valid_until > timezone.now():
        stored.append(device.previous_password_hash)
    return any(passwords.verify(password, found) for found in stored if found)


def login(device_id: str, *, current: bool = True) -> None:
    now, mark = timezone.now(), Stations.get(device_id=device_id).password_mark
    used = {"current_at": now, "current_mark": mark} if current else {"previous_at": now}
    LastLogin.objects.update_or_create(
        key=f"weatherstation/{device_id}", defaults={"first_at": now, "at": now, **used}
    )


def test_a_rotation_issues_each_password_once(kind, cast):
    rotation = begin(kind)

    issued = issue(rotation)

    assert issued.keys() == cast.keys()
    for device_id, found in issued.items():
        assert accepts(device_id, str(found["mqtt_password"]))
        assert accepts(device_id, cast[device_id].password)
        assert "api_key" not in found
    rotation.refresh_from_db()
    assert rotation.written_at is not None
    assert AuditEntry.objects.filter(action="password_rotated").count() == 7
    assert AuditEntry.objects.get(action="rotation_started").after == {"name": "spring", "devices": 7}
    shown = AuditEntry.objects.get(action="credentials_shown")
    assert (shown.object_key, shown.after) == (f"rotation/{rotation.pk}", {"devices": 7})


def test_api_keys_are_replaced_if_wanted(kind, cast):
    issued = issue(begin(kind, api_keys=True))

    device = Stations.get(device_id="R-1")
    assert device.api_key == provisioning_digest(issued["R-1"]["api_key"])
    assert AuditEntry.objects.filter(action="api_key_rotated").count() == 7


def test_rolling_back_restores_the_api_keys(kind, cast):
    Stations.filter(device_id="R-3").update(api_key=None)
    before = keys()
    rotation = begin(kind, api_keys=True)
    issued = issue(rotation)
    login("R-1")
    chosen = provisioning.rotate_api_key(Stations.get(device_id="R-2"))
    issue(rotation)

    assert rotations.roll_back(rotation, rotation.members.all()) == 6

    of_file, of_person = provisioning_digest(issued["R-1"]["api_key"]), provisioning_digest(chosen)
    assert keys() == before | {"R-1": of_file, "R-2": of_person}
    assert AuditEntry.objects.filter(action="api_key_rolled_back").count() == 5
    assert not rotation.members.exclude(end="").exclude(replaced_key="").exists(), "kept while it can return"


def test_rotating_again_leaves_an_api_key_that_a_device_may_use(kind, cast):
    """A key has no overlap, and its use for a token is not noted."""
    rotation = begin(kind, api_keys=True)
    run = rotations.issue(rotation, rotation.members.all())
    first = {d["device_id"]: provisioning_digest(d["api_key"]) for d in next(run)}
    run.close()

    again = issue(rotation)

    assert again.keys() == cast.keys()
    assert {name for name, found in again.items() if "api_key" in found} == cast.keys() - first.keys()
    assert keys().items() >= first.items()


def test_rotating_an_import_again_replaces_the_keys_of_devices_that_never_logged_in(kind, cast):
    rotation = begin(kind, None, api_keys=True, origin=Rotation.Origin.IMPORT)
    issue(rotation)
    now = timezone.now()
    LastLogin.objects.create(key="weatherstation/R-1", first_at=now, at=now)  # With a token.
    provisioning.rotate_api_key(Stations.get(device_id="R-2"))

    again = issue(rotation)

    assert {name for name, found in again.items() if "api_key" in found} == cast.keys() - {"R-1", "R-2"}


def keys() -> dict[str, str | None]:
    return dict(Stations.values_list("device_id", "api_key"))


def provisioning_digest(key: object) -> str:
    from devicehub.models import digest_api_key

    return digest_api_key(str(key))


def test_devices_of_several_types_rotate_together(kind, cast):
    valve = provision("V-1", "irrigationvalve")
    kinds = [
        (kind, Stations.all()),
        (provisioning.kind_of("irrigationvalve"), IrrigationValveDevice.objects.all()),
    ]
    rotation = rotations.start("both", kinds, until=None)

    issued = issue(rotation)

    assert set(issued) == {*cast, "V-1"}
    valve.device.refresh_from_db()
    assert passwords.verify(str(issued["V-1"]["mqtt_password"]), valve.device.mqtt_password_hash)


def test_a_device_without_a_username_gets_one(kind, db):
    Stations.create(device_id="BARE")

    assert issue(begin(kind))["BARE"]["mqtt_username"] == "fleet-weatherstationdevice-BARE"


def test_a_device_whose_username_is_taken_waits(kind, cast):
    Stations.create(device_id="BARE")
    Stations.filter(device_id="R-1").update(mqtt_username="fleet-weatherstationdevice-BARE")
    rotation = begin(kind)

    assert "BARE" not in issue(rotation)
    assert rotations.progress(rotation.members.all()).waiting == 1


def test_progress_tells_new_from_old_passwords(kind, cast):
    login("R-4")
    rotation = begin(kind)
    assert rotations.progress(rotation.members.all()).waiting == 7
    issue(rotation)
    login("R-1")
    login("R-2", current=False)
    provisioning.revoke(Stations.get(device_id="R-3"))
    Stations.filter(device_id="R-5").delete()

    progress = rotations.progress(rotation.members.all())

    assert (progress.total, progress.waiting, progress.confirmed) == (7, 0, 1)
    assert (progress.old, progress.never, progress.changed) == (2, 2, 2)
    found = rotations.with_state(rotation.members.all()).filter(state="old")
    assert [member.device_key for member in found] == ["weatherstation/R-2", "weatherstation/R-4"]


def test_a_device_without_a_valid_old_password_does_not_count_as_on_the_old_one(kind, cast):
    """R-1 and BARE had none before, a person ended that of R-2, and those of R-3 and R-4 ended by their dates."""
    Stations.create(device_id="BARE")
    provisioning.revoke(Stations.get(device_id="R-1"))
    rotation = begin(kind, until=timezone.now() + timedelta(days=1))
    issue(rotation)
    provisioning.end_overlap(Stations.get(device_id="R-2"))
    past = timezone.now() - timedelta(seconds=1)
    Stations.filter(device_id="R-3").update(previous_valid_until=past)
    Stations.filter(device_id="R-4").update(password_expires_at=past)
    members = rotation.members.all()
    assert rotations.progress(members).never == 8
    assert rotations.progress(members).restorable == rotations.progress(members).overlapping == 3
    for device_id in ("R-1", "R-2", "R-3", "R-4", "R-5"):
        login(device_id, current=False)

    progress = rotations.progress(members)

    assert (progress.old, progress.without_old, progress.never, progress.unconfirmed) == (1, 4, 3, 8)
    found = rotations.with_state(members).filter(state="old")
    assert [member.device_key for member in found] == ["weatherstation/R-5"]
    assert len(issue(rotation)) == 8, "rotating again reaches those without an old one too"
    assert progress.restorable == rotations.roll_back(rotation, members) == 3
    after = rotations.progress(members)
    assert (after.old, after.without_old, after.never, after.ended) == (0, 4, 1, 3)
    assert after.restorable == 0


def test_finishing_ends_the_old_passwords(kind, cast):
    rotation = begin(kind)
    issued = issue(rotation)
    login("R-1")
    provisioning.rotate_password(Stations.get(device_id="R-3"), valid_until=UNTIL_USED)
    provisioning.rotate_api_key(Stations.get(device_id="R-4"))
    before = rotations.progress(rotation.members.all())
    assert before.changed == 1, "another API key leaves the password"
    assert (before.overlapping, before.restorable) == (6, 5), "the confirmed one has an old password too"

    assert rotations.finish(rotation, rotation.members.all()) == 6

    assert not accepts("R-2", cast["R-2"].password)
    assert not accepts("R-4", cast["R-4"].password)
    assert accepts("R-2", str(issued["R-2"]["mqtt_password"]))
    assert Stations.get(device_id="R-3").previous_password_hash, "the rotation after this one is not touched"
    assert AuditEntry.objects.filter(action="overlap_ended").count() == 6
    assert rotations.progress(rotation.members.all()).ended == 7


def test_rolling_back_restores_old_passwords_of_those_not_confirmed(kind, cast):
    expiry = timezone.now() + timedelta(days=3)
    Stations.filter(device_id="R-2").update(password_expires_at=expiry)
    rotation = begin(kind)
    issued = issue(rotation)
    login("R-1")

    assert rotations.roll_back(rotation, rotation.members.all()) == 6

    assert accepts("R-1", str(issued["R-1"]["mqtt_password"]))
    assert accepts("R-2", cast["R-2"].password)
    assert not accepts("R-2", str(issued["R-2"]["mqtt_password"]))
    device = Stations.get(device_id="R-2")
    assert (device.password_expires_at, device.previous_password_hash) == (expiry, "")
    assert AuditEntry.objects.filter(action="password_rolled_back").count() == 6
    assert rotations.roll_back(rotation, rotation.members.all()) == 0


@pytest.mark.parametrize("soonest", ["set", "replaced"])
def test_an_expiry_set_during_the_overlap_outlasts_every_act(kind, cast, soonest):
    """Of the expiry of the old password and that one, the earlier holds, also for a password that is put back."""
    set_, replaced = (
        timezone.now() + timedelta(days=days) for days in ((1, 2) if soonest == "set" else (2, 1))
    )
    Stations.filter(device_id="R-2").update(password_expires_at=replaced)
    rotation = begin(kind)
    issue(rotation)
    late = first_use("R-1")
    for device_id in ("R-1", "R-2"):
        Stations.filter(device_id=device_id).update(password_expires_at=set_)

    issue(rotation)
    assert Stations.get(device_id="R-2").password_expires_at == set_
    late()
    rotations.roll_back(rotation, rotation.members.all())

    assert Stations.get(device_id="R-1").password_expires_at == set_
    expiry = min(set_, replaced)
    assert Stations.get(device_id="R-2").password_expires_at == expiry
    entries = AuditEntry.objects.filter(object_key="weatherstation/R-2", action="password_rolled_back")
    assert entries.get().after == {"password_expires_at": audited(expiry)}
    found = AuditEntry.objects.filter(object_key="weatherstation/R-1").values_list("action", flat=True)
    assert "previous_replaced" in found
    assert "overlap_ended" not in found, "it goes on"


def audited(moment: datetime) -> str:
    """Return *moment* as an entry of the audit holds it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_rolling_back_leaves_devices_that_changed_since(kind, cast):
    rotation = begin(kind)
    issue(rotation)
    revoked, rotated = Stations.get(device_id="R-1"), Stations.get(device_id="R-2")
    provisioning.revoke(revoked)
    newest = provisioning.rotate_password(rotated, valid_until=None)

    assert rotations.roll_back(rotation, rotation.members.all()) == 5

    assert Stations.get(device_id="R-1").mqtt_password_hash == ""
    assert accepts("R-2", newest)


def test_rolling_back_never_revives_a_password_that_ended(kind, cast):
    rotation = begin(kind, until=timezone.now() + timedelta(hours=1))
    issue(rotation)
    Stations.filter(device_id="R-1").update(previous_valid_until=timezone.now() - timedelta(seconds=1))

    assert rotations.roll_back(rotation, rotation.members.all()) == 6
    assert not accepts("R-1", cast["R-1"].password)


def test_an_old_password_that_ends_during_the_rolling_back_is_not_restored(kind, cast, monkeypatch):
    rotation = begin(kind, until=timezone.now() + timedelta(hours=1))
    issue(rotation)
    during(monkeypatch, lambda: Stations.filter(device_id="R-6").update(previous_valid_until=timezone.now()))

    assert rotations.roll_back(rotation, rotation.members.all()) == 6
    assert not accepts("R-6", cast["R-6"].password)


def test_finishing_leaves_a_member_open_that_was_moved_meanwhile(kind, cast, monkeypatch):
    rotation = begin(kind)
    issue(rotation)
    northern = person("mara", roles.OPERATOR, ["north"])
    members = visibility.rows(rotation.members.all(), northern, action=visibility.CHANGE)
    during(monkeypatch, lambda: Stations.filter(device_id="R-1").update(site="south"))

    assert rotations.finish(rotation, members) == 6
    assert accepts("R-1", cast["R-1"].password)
    assert rotations.progress(rotation.members.all()).never == 1


def test_a_rotation_at_once_cannot_be_rolled_back(kind, cast):
    rotation = begin(kind, until=None)
    issue(rotation)

    assert rotations.roll_back(rotation, rotation.members.all()) == 0
    assert not accepts("R-1", cast["R-1"].password)


def test_a_run_that_broke_off_goes_on_without_losing_an_old_password(kind, cast):
    rotation = begin(kind)
    run = rotations.issue(rotation, rotation.members.all())
    lost = {d["device_id"]: d["mqtt_password"] for d in next(run)}
    run.close()
    assert len(lost) == 3
    assert rotations.progress(rotation.members.all()).waiting == 4

    again = issue(rotation)

    assert again.keys() == cast.keys()
    for device_id, found in again.items():
        assert accepts(device_id, cast[device_id].password)
        assert accepts(device_id, str(found["mqtt_password"]))
        assert device_id not in lost or not accepts(device_id, str(lost[device_id]))


def test_a_second_file_leaves_confirmed_devices_alone(kind, cast):
    rotation = begin(kind)
    first = issue(rotation)
    login("R-1")

    assert "R-1" not in issue(rotation)
    assert accepts("R-1", str(first["R-1"]["mqtt_password"]))


def test_one_run_at_a_time(kind, cast):
    rotation = begin(kind)

    assert rotations.claim(rotation)
    assert not rotations.claim(rotation)
    Rotation.objects.update(touched_at=timezone.now() - rotations.PAUSE - timedelta(seconds=1))
    assert rotations.claim(rotation)
    rotations.close(rotation, "rotation_finished", 0)
    Rotation.objects.update(written_at=timezone.now())
    assert not rotations.claim(rotation)


@pytest.mark.parametrize("is_last", [False, True], ids=["between batches", "at the end"])
def test_a_run_that_was_overtaken_changes_nothing_more(kind, cast, is_last):
    """It stalled in the middle of its file, or with the last batch, and "Rotate again" began meanwhile."""
    rotation = begin(kind)
    assert rotations.claim(rotation)
    stalled = rotations.issue(rotation, rotation.members.all())
    early = {d["device_id"]: d["mqtt_password"] for _ in range(3 if is_last else 1) for d in next(stalled)}
    later = stall(rotation)
    assert rotations.claim(later)
    second = rotations.issue(later, later.members.all())
    issued = {d["device_id"]: d["mqtt_password"] for d in next(second)}

    with pytest.raises(rotations.Overtaken):
        next(stalled)

    issued |= {d["device_id"]: d["mqtt_password"] for batch in second for d in batch}
    assert issued.keys() == cast.keys()
    for device_id, password in issued.items():
        assert accepts(device_id, str(password))
        assert device_id not in early or not accepts(device_id, str(early[device_id]))


@pytest.mark.parametrize("end", [rotations.finish, rotations.roll_back])
def test_no_run_begins_while_an_end_works(kind, cast, monkeypatch, end):
    rotation = begin(kind)
    issue(rotation)
    rotation.refresh_from_db()
    before = rotation.touched_at, rotation.written_at
    began = []
    during(monkeypatch, lambda: began.append(rotations.claim(Rotation.objects.get())))

    assert end(rotation, rotation.members.all()) == 7

    assert began == [False, False, False]
    rotation.refresh_from_db()
    assert (rotation.touched_at, rotation.written_at) == before
    assert rotations.claim(rotation), "a user of one site ended a part"


def test_of_two_ends_the_later_one_goes_on(kind, cast, monkeypatch):
    rotation = begin(kind)
    issue(rotation)
    ends = [lambda: rotations.roll_back(Rotation.objects.get(), rotation.members.all())]
    during(monkeypatch, lambda: ends and ends.pop()())

    with pytest.raises(rotations.Overtaken):
        rotations.finish(rotation, rotation.members.all())

    assert all(accepts(device_id, found.password) for device_id, found in cast.items())


def during(monkeypatch, interrupt: Callable[[], object]) -> None:
    """Call *interrupt* in each batch, before its devices are locked."""
    locked = rotations._locked

    def slow(*arguments):
        interrupt()
        return locked(*arguments)

    monkeypatch.setattr(rotations, "_locked", slow)


@pytest.mark.parametrize("end", [rotations.finish, rotations.roll_back])
def test_a_stalled_run_does_not_outlast_the_end(kind, cast, end):
    rotation = begin(kind)
    assert rotations.claim(rotation)
    stalled = rotations.issue(rotation, rotation.members.all())
    next(stalled)
    end(stall(rotation), rotation.members.all())

    with pytest.raises(rotations.Overtaken):
        next(stalled)
    assert accepts("R-6", cast["R-6"].password)


def stall(rotation: Rotation) -> Rotation:
    """Return *rotation* as another process reads it after its run made a pause."""
    Rotation.objects.update(touched_at=timezone.now() - rotations.PAUSE - timedelta(seconds=1))
    return Rotation.objects.get(pk=rotation.pk)


def first_use(device_id: str) -> Callable[[], None]:
    """Return the change that the service makes about a second after the first login with the new password."""
    device = Stations.get(device_id=device_id)
    used, previous = device.mqtt_password_hash, device.previous_password_hash
    return lambda: DeviceDirectory().retire_previous(f"weatherstation/{device_id}", used, previous)


OVERLAPS = {"until used": UNTIL_USED, "until a date": timezone.now() + timedelta(days=1)}


@pytest.mark.parametrize("until", OVERLAPS.values(), ids=OVERLAPS)
def test_rotating_again_keeps_a_password_whose_use_is_noted_later(kind, cast, until):
    expiry = timezone.now() + timedelta(hours=1)
    Stations.update(password_expires_at=expiry)
    rotation = begin(kind, until=until)
    used = {}
    for _ in range(2):
        password = str(issue(rotation)["R-1"]["mqtt_password"])
        used[password] = first_use("R-1")
    last = str(issue(rotation)["R-1"]["mqtt_password"])

    provisioning.rotate_api_key(Stations.get(device_id="R-1"))
    for password, use in used.items():
        use()

        assert accepts("R-1", password), "the device has no other"
        assert accepts("R-1", last)
        assert not accepts("R-1", cast["R-1"].password)
    next(iter(used.values()))()
    assert accepts("R-1", password), "an earlier use that is noted even later changes nothing"
    assert rotations.roll_back(rotation, rotation.members.all()) == 7
    assert Stations.get(device_id="R-1").check_mqtt_password(password)
    assert Stations.get(device_id="R-1").password_expires_at is None
    assert Stations.get(device_id="R-2").password_expires_at == expiry


@pytest.mark.parametrize(
    "replace",
    [
        lambda kind: str(issue(begin(kind))["R-1"]["mqtt_password"]),
        lambda kind: provisioning.rotate_password(
            Stations.get(device_id="R-1"), valid_until=timezone.now() + timedelta(days=1)
        ),
    ],
    ids=["another rotation", "a person"],
)
def test_a_replaced_password_whose_use_is_noted_later_is_kept(kind, cast, replace):
    rotation = begin(kind)
    password, use = str(issue(rotation)["R-1"]["mqtt_password"]), first_use("R-1")
    newest = replace(kind)

    use()
    use()

    assert accepts("R-1", password), "the device has no other"
    assert accepts("R-1", newest)
    assert not accepts("R-1", cast["R-1"].password)
    assert AuditEntry.objects.get(action="previous_replaced").object_key == "weatherstation/R-1"


@pytest.mark.parametrize(
    "end",
    [
        provisioning.revoke,
        provisioning.end_overlap,
        lambda device: provisioning.rotate_password(device, valid_until=None),
    ],
    ids=["revoke", "end the overlap", "at once"],
)
def test_a_late_use_keeps_no_password_that_a_person_ended(kind, cast, end):
    rotation = begin(kind)
    password, use = str(issue(rotation)["R-1"]["mqtt_password"]), first_use("R-1")
    provisioning.rotate_password(Stations.get(device_id="R-1"), valid_until=UNTIL_USED)
    end(Stations.get(device_id="R-1"))

    use()

    assert not accepts("R-1", password)


def test_the_first_use_ends_an_old_password_also_before_its_expiry(kind, cast):
    """The old password may not outlast its expiry, so the overlap has a date in the place of the first use."""
    Stations.update(password_expires_at=timezone.now() + timedelta(days=300))
    until_used = str(issue(begin(kind))["R-1"]["mqtt_password"])
    assert accepts("R-1", cast["R-1"].password)

    first_use("R-1")()

    assert accepts("R-1", until_used)
    assert not accepts("R-1", cast["R-1"].password)
    assert AuditEntry.objects.get(action="overlap_ended").object_key == "weatherstation/R-1"
    issue(begin(kind, until=timezone.now() + timedelta(days=1)))
    first_use("R-1")()
    assert accepts("R-1", until_used), "until a date it stays"


@pytest.mark.parametrize("until", OVERLAPS.values(), ids=OVERLAPS)
@pytest.mark.parametrize("runs", [1, 2])
def test_a_roll_back_keeps_a_password_whose_use_is_noted_later(kind, cast, until, runs):
    rotation = begin(kind, until=until)
    password = str(issue(rotation)["R-1"]["mqtt_password"])
    use = first_use("R-1")
    others = [issue(rotation) for _ in range(runs - 1)] or [{}]
    rotations.roll_back(rotation, rotation.members.all())
    assert not accepts("R-1", password)

    use()
    use()

    assert accepts("R-1", password), "the device has no other"
    assert accepts("R-1", cast["R-1"].password)
    assert not any(accepts("R-1", str(found["mqtt_password"])) for found in others[0].values())
    assert AuditEntry.objects.get(action="previous_replaced").object_key == "weatherstation/R-1"
    provisioning.rotate_password(Stations.get(device_id="R-1"), valid_until=UNTIL_USED)
    assert accepts("R-1", password), "the next rotation replaces it, and keeps it until then"
    assert not accepts("R-1", cast["R-1"].password)


@pytest.mark.parametrize(
    "end", [provisioning.revoke, lambda device: provisioning.rotate_password(device, valid_until=None)]
)
def test_a_late_use_changes_no_password_that_was_changed_after_a_roll_back(kind, cast, end):
    rotation = begin(kind)
    password, use = str(issue(rotation)["R-1"]["mqtt_password"]), first_use("R-1")
    rotations.roll_back(rotation, rotation.members.all())
    end(Stations.get(device_id="R-1"))

    use()

    assert not accepts("R-1", password)


@pytest.mark.parametrize("until", OVERLAPS.values(), ids=OVERLAPS)
def test_a_use_counts_before_the_last_login_is_written(kind, cast, until):
    """Both are written in the background, and the use may be first."""
    rotation = begin(kind, until=until)
    first = str(issue(rotation)["R-1"]["mqtt_password"])
    device, question = Stations.get(device_id="R-1"), LoginQuestion(Client("R-1", "R-1"), first)
    secrets = Secret(device.mqtt_password_hash), Secret(device.previous_password_hash, until.timestamp())
    principal = Principal("weatherstation/R-1", "R-1", secrets, keeper=DeviceDirectory())
    for _ in range(2):
        renewals.note(Verdict((Decision(True, Reason.CREDENTIALS),), principal, question, None, secrets[0]))
    assert renewals.flush() == 1, "the logins of a long overlap do not write each time"

    assert "R-1" not in issue(rotation)
    assert rotations.progress(rotation.members.all()).confirmed == 1
    assert rotations.roll_back(rotation, rotation.members.all()) == 6
    assert accepts("R-1", first)


def test_an_overlap_that_a_person_ended_is_not_taken_for_a_use(kind, cast):
    rotation = begin(kind)
    lost = str(issue(rotation)["R-1"]["mqtt_password"])
    provisioning.end_overlap(Stations.get(device_id="R-1"))

    again = str(issue(rotation)["R-1"]["mqtt_password"])

    assert accepts("R-1", again)
    assert not accepts("R-1", lost)


def test_a_late_use_of_a_password_that_was_rolled_back_lets_it_not_in(kind, cast):
    """A process that has lost the database accepts an ended password for minutes, and notes its use after them."""
    rotation = begin(kind)
    rolled_back = str(issue(rotation)["R-1"]["mqtt_password"])
    late = first_use("R-1")
    rotations.roll_back(rotation, rotation.members.all())
    Stations.update(credentials_changed_at=timezone.now() - LATE - timedelta(seconds=1))
    late()
    assert not accepts("R-1", rolled_back)
    following = begin(kind)
    issue(following)
    late()
    issue(following)

    late()

    assert not accepts("R-1", rolled_back)
    assert accepts("R-1", cast["R-1"].password)


@pytest.mark.parametrize("act", ["issue", "roll_back"])
def test_a_login_that_is_noted_before_the_lock_counts(kind, cast, monkeypatch, act):
    """The members are read page by page, and their devices are locked after that."""
    rotation = begin(kind, until=timezone.now() + timedelta(days=1))
    first = issue(rotation)
    during(monkeypatch, lambda: login("R-1"))
    done = issue(rotation) if act == "issue" else rotations.roll_back(rotation, rotation.members.all())

    assert (done if act == "roll_back" else len(done)) == 6
    assert Stations.get(device_id="R-1").check_mqtt_password(str(first["R-1"]["mqtt_password"]))


def test_a_late_end_of_an_overlap_revives_no_password(kind, cast):
    """The job waited for the database, and a person ended that password meanwhile."""
    issue(begin(kind))
    used = Stations.get(device_id="R-1")
    late = first_use("R-1")
    current = provisioning.rotate_password(used, valid_until=None)
    newest = provisioning.rotate_password(used, valid_until=UNTIL_USED)

    late()

    assert Stations.get(device_id="R-1").check_mqtt_password(newest)
    assert accepts("R-1", current)


def test_a_rotation_is_bounded(kind, cast, monkeypatch):
    monkeypatch.setattr(rotations, "MOST", 6)

    with pytest.raises(rotations.TooManyDevices):
        begin(kind)
    assert not Rotation.objects.exists()


def test_no_row_of_a_rotation_holds_a_secret(kind, cast):
    rotation = begin(kind)
    issued = issue(rotation)

    stored = [*rotation.members.values(), *Rotation.objects.values(), *AuditEntry.objects.values()]
    for found in issued.values():
        assert str(found["mqtt_password"]) not in repr(stored)
    assert "$" not in repr(stored)


def test_a_login_with_the_old_password_during_the_rotation_confirms_nothing(kind, cast):
    """It was judged before the commit, and noted with a later time than that of the new password."""
    rotation = begin(kind)
    old = Stations.get(device_id="R-1").password_mark
    issue(rotation)
    later = timezone.now() + timedelta(seconds=5)
    LastLogin.objects.create(
        key="weatherstation/R-1", first_at=later, at=later, current_at=later, current_mark=old
    )

    assert rotations.progress(rotation.members.all()).confirmed == 0
