"""Import of devices from a table: verdicts, creation, limits of people, and runs that break off."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from authsvc import audit
from authsvc.models import Account, AuditEntry, LastLogin
from devicehub import provisioning
from devicehub.bulk import imports, rotations
from devicehub.bulk.imports import Limits
from devicehub.bulk.xlsx_package import UnreadableTable
from devicehub.models import DeviceImport, ImportPart, Rotation
from devicehub.signals import device_provisioned
from fleet.models import IrrigationValveDevice, WeatherStationDevice

pytestmark = pytest.mark.django_db
Stations = WeatherStationDevice.objects
EVERYTHING = Limits()
HEADINGS = ["device_id", "name", "site", "type", "floor"]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(imports, "BATCH", 3)
    monkeypatch.setattr(imports, "PART", 2)


@pytest.fixture
def mara(db) -> User:
    return User.objects.create_user("mara")


def table(*lines: str) -> io.BytesIO:
    return io.BytesIO("\n".join(lines).encode())


def judged(kind, *cells: list[str], headings=HEADINGS, limits=EVERYTHING) -> list[imports.Candidate]:
    rows = enumerate(cells, 2)
    return [
        c for batch in imports.judge(rows, headings, imports.guess(headings), kind, limits) for c in batch
    ]


def create(upload, limits=EVERYTHING) -> dict[str, dict[str, object]]:
    return {found["device_id"]: found for batch in imports.run(upload, limits) for found in batch}


@pytest.mark.parametrize(
    ("headings", "columns"),
    [
        (["Device ID", "Name", "Location", "Type"], ["device_id", "name", "site", "type"]),
        (["id", "serial", "floor"], ["device_id", "metadata", "metadata"]),
        (["device-id", "mqtt_password", "API key", "PSK", ""], ["device_id", "", "", "", ""]),
        (["id", "pwd", "WiFi Key", "pass", "keyboard"], ["device_id", "", "", "", "metadata"]),
    ],
)
def test_columns_are_guessed_by_their_headings(headings, columns):
    assert imports.guess(headings) == columns


def test_each_row_gets_a_verdict(kind, fleet):
    Account.objects.create(username="backend", client_ids=["radio-*"])
    found = judged(
        kind,
        ["A-1", "Roof", "north", "", "3"],
        ["F-01"],
        ["A-1"],
        ["A 2"],
        ["A-3", "x" * 256],
        ["A-4", "two\nlines"],
        ["A-5", "", "", "toaster"],
        ["A-6", "", "", "irrigationvalve"],
        ["backend"],
        ["radio-7"],
        ["fleet-weatherstationdevice-A-6"],
        ["A-7", "", "", "", "", "more"],
    )

    said = [(c.verdict, c.column) for c in found]
    assert said == [
        ("new", ""),
        ("exists", ""),
        *[("error", "device_id")] * 2,
        *[("error", "name")] * 2,
        ("error", "type"),
        ("new", ""),
        *[("error", "device_id")] * 2,
        ("new", ""),
        ("error", ""),
    ]
    assert found[0].fields == {"name": "Roof", "site": "north", "metadata": {"floor": "3"}}
    assert "in the file twice" in found[2].problem
    assert found[8].problem == "the service account backend has the name backend already"
    assert found[7].key == "irrigationvalve/A-6"


def test_an_id_that_a_device_of_another_type_has_is_an_error(kind, fleet):
    IrrigationValveDevice.objects.create(device_id="V-1")

    (found,) = judged(kind, ["V-1"])

    assert (found.verdict, found.column) == ("error", "device_id")
    assert found.problem == "irrigationvalve/V-1 has the name V-1 already"


@pytest.mark.parametrize("columns", [["name"], ["device_id", "device_id"]])
def test_columns_that_do_not_fit_are_refused(kind, columns):
    with pytest.raises(UnreadableTable):
        imports.check_columns(columns)


def test_a_limited_person_imports_into_their_sites_only(kind, fleet):
    limits = Limits(kinds={"weatherstation"}, sites={"north"})
    found = judged(
        kind, ["A-1", "", "north"], ["A-2", "", "south"], ["A-3"], ["F-01", "", "north"], ["F-00", "", "north"],
        ["A-4", "", "north", "irrigationvalve"], limits=limits,
    )  # fmt: skip

    assert [(c.verdict, c.column) for c in found] == [
        ("new", ""),
        ("error", "site"),
        ("error", "site"),
        ("exists", ""),
        ("error", "device_id"),
        ("error", "type"),
    ]
    assert found[4].problem == "another identity has the name F-00 already"


def test_a_limited_person_imports_no_id_of_an_earlier_device(kind):
    audit.record("device_removed", kind.key("A-1"))

    (limited,) = judged(kind, ["A-1", "", "north"], limits=Limits(sites={"north"}))
    (of_all,) = judged(kind, ["A-1", "", "north"])

    assert (limited.verdict, limited.problem) == ("error", "an earlier device had this id")
    assert of_all.verdict == "new"


def test_an_upload_becomes_devices_with_credentials(kind, fleet, mara, django_capture_on_commit_callbacks):
    announced = []
    device_provisioned.connect(receiver := lambda device, **_: announced.append(device.device_id))
    lines = [
        "device_id;name;site;floor",
        *(f"A-{n};Säule {n};north;{n}" for n in range(7)),
        "F-01;;;",
        "A 8;;;",
    ]
    upload = imports.store(mara, table(*lines), "fleet.csv", "weatherstation")
    imports.check(upload, Limits())
    assert upload.counts == {"new": 7, "exists": 1, "error": 1}
    assert [found["verdict"] for found in upload.verdicts][:2] == ["error", "new"]

    with django_capture_on_commit_callbacks(execute=True):
        issued = create(upload)

    device_provisioned.disconnect(receiver)
    assert issued.keys() == {f"A-{n}" for n in range(7)} == set(announced)
    device = Stations.get(device_id="A-3")
    assert (device.name, device.site, device.metadata) == ("Säule 3", "north", {"floor": "3"})
    assert device.check_mqtt_password(str(issued["A-3"]["mqtt_password"]))
    assert AuditEntry.objects.filter(action="device_created").count() == 7
    shown = AuditEntry.objects.get(action="credentials_shown")
    assert (shown.object_key, shown.after) == (f"rotation/{upload.rotation_id}", {"devices": 7})
    upload.refresh_from_db()
    assert (upload.done, upload.created, upload.parts.count()) == (9, 7, 0)
    assert upload.finished_at is not None


def test_an_import_is_watched_as_a_rotation(kind, mara):
    upload = imports.store(mara, table("device_id", "A-1", "A-2"), "fleet.csv", "weatherstation")
    create(upload)

    members = upload.rotation.members.all()
    progress = rotations.progress(members)
    assert (progress.total, progress.never) == (2, 2)
    now, mark = timezone.now(), Stations.get(device_id="A-2").password_mark
    LastLogin.objects.create(
        key="weatherstation/A-2", first_at=now, at=now, current_at=now, current_mark=mark
    )
    assert rotations.progress(members).confirmed == 1
    again = [found for batch in rotations.issue(upload.rotation, members) for found in batch]
    assert len(again) == 1
    device = Stations.get(device_id="A-1")
    assert device.check_mqtt_password(again[0]["mqtt_password"])
    assert again[0]["api_key"]


def test_a_run_that_broke_off_is_continued(kind, mara):
    upload = imports.store(mara, table("device_id", *(f"A-{n}" for n in range(7))), "f.csv", "weatherstation")
    assert imports.claim(upload)
    run = imports.run(upload, Limits())
    lost = {found["device_id"] for found in next(run)}
    run.close()
    assert Stations.count() == len(lost) == 3
    assert not imports.claim(upload), "it may still run"
    stall()

    assert imports.claim(upload)
    issued = create(DeviceImport.objects.get(pk=upload.pk))

    assert Stations.count() == 7
    assert issued.keys().isdisjoint(lost)
    upload.refresh_from_db()
    assert upload.created == 7
    assert upload.rotation.members.count() == 7


@pytest.mark.parametrize("later", ["import", "rotation"])
def test_an_import_that_stalled_stops_when_it_was_overtaken(kind, mara, later):
    upload = imports.store(mara, table("device_id", *(f"A-{n}" for n in range(7))), "f.csv", "weatherstation")
    assert imports.claim(upload)
    stalled = imports.run(upload, Limits())
    next(stalled)
    stall()
    if later == "import":
        again = DeviceImport.objects.get(pk=upload.pk)
        assert imports.claim(again)
        next(imports.run(again, Limits()))
    else:
        assert rotations.claim(Rotation.objects.get())
    created = Stations.count()

    with pytest.raises(rotations.Overtaken):
        next(stalled)
    assert Stations.count() == created


def test_an_import_that_starts_late_does_not_stop_the_later_one(kind, mara):
    """Its reader took the first piece of the file only after another run began."""
    upload = imports.store(mara, table("device_id", *(f"A-{n}" for n in range(7))), "f.csv", "weatherstation")
    assert imports.claim(upload)
    late = imports.run(upload, Limits())
    stall()
    again = DeviceImport.objects.get(pk=upload.pk)
    assert imports.claim(again)

    with pytest.raises(rotations.Overtaken):
        next(late)
    assert len(create(again)) == 7


def test_an_import_waits_for_another_file_of_its_rotation(kind, mara):
    upload = imports.store(mara, table("device_id", *(f"A-{n}" for n in range(7))), "f.csv", "weatherstation")
    assert imports.claim(upload)
    next(imports.run(upload, Limits()))
    stall()
    rotation = Rotation.objects.get()
    assert rotations.claim(rotation)

    assert not imports.claim(upload)
    upload.refresh_from_db()
    assert not imports.is_running(upload)
    assert len([found for batch in rotations.issue(rotation, rotation.members.all()) for found in batch]) == 3
    assert imports.claim(upload)


def stall() -> None:
    """Let the runs have made a pause."""
    late = timezone.now() - imports.PAUSE - timedelta(seconds=1)
    DeviceImport.objects.update(touched_at=late)
    Rotation.objects.update(touched_at=late)


def test_a_name_that_is_taken_meanwhile_costs_one_row(kind, mara, monkeypatch):
    upload = imports.store(mara, table("device_id", "A-1", "A-2", "A-3"), "f.csv", "weatherstation")
    recheck, calls = imports.recheck, []

    def blind(candidates, limits):
        if len(candidates) > 1 or candidates[0].device_id == "A-2":
            calls.append(len(candidates))
            return
        recheck(candidates, limits)

    monkeypatch.setattr(imports, "recheck", blind)
    provisioning.create(kind, "A-2")

    assert create(upload).keys() == {"A-1", "A-3"}
    assert calls == [3, 1]
    assert Stations.count() == 3


def test_the_rows_of_secret_columns_are_not_stored(kind, mara):
    content = table("device_id,password,WiFi PSK,API Key,Pre-shared", "A-1,hunter2,swordfish,xyzzy,plugh")

    upload = imports.store(mara, content, "fleet.csv", "weatherstation")

    stored = repr(list(ImportPart.objects.values()))
    assert not [secret for secret in ("hunter2", "swordfish", "xyzzy", "plugh") if secret in stored]
    create(upload)
    assert Stations.get().metadata == {}


def test_uploads_are_deleted_by_age_and_by_the_next_one(kind, mara):
    old = imports.store(mara, table("device_id", "A-1"), "old.csv", "weatherstation")
    new = imports.store(mara, table("device_id", "A-1"), "new.csv", "weatherstation")
    assert list(DeviceImport.objects.all()) == [new]
    assert not ImportPart.objects.filter(upload=old).exists()

    DeviceImport.objects.update(uploaded_at=timezone.now() - imports.KEPT - timedelta(seconds=1))
    imports.delete_old()

    assert not ImportPart.objects.exists()


def test_an_unreadable_table_leaves_nothing(kind, mara):
    with pytest.raises(UnreadableTable):
        imports.store(mara, table("device_id", "A-1", "x" * 2000), "fleet.csv", "weatherstation")

    assert not DeviceImport.objects.exists()


def test_types_with_their_own_save_are_saved_one_by_one(kind, mara, monkeypatch):
    saved = []
    save = WeatherStationDevice.save

    def own(self, *arguments, **options):
        saved.append(self.device_id)
        save(self, *arguments, **options)

    monkeypatch.setattr(WeatherStationDevice, "save", own)
    create(imports.store(mara, table("device_id", "A-1"), "f.csv", "weatherstation"))

    assert saved == ["A-1"]
