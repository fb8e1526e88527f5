"""Removal of a device with many rows: the request is fast, and a worker that may be killed deletes the rows."""

import subprocess
import sys
import time

import pytest
from django.db import connection
from django.db.models.signals import pre_delete
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub import removal
from devicehub.db.batches import Pace
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import RemovalRequest
from devicehub.removal.deletion import EnabledAgain
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.hub import ROOT, environment, eventually
from rig.telemetry import TOPICS, fill, remains, sql

MANY = 100_000
SERIES = {
    "sqlite": f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {MANY}) SELECT n FROM s)",
    "postgresql": f"(SELECT generate_series(1, {MANY}) AS n)",
}
AT = {
    "sqlite": "datetime('2026-03-02', '+' || n || ' minutes')",
    "postgresql": "timestamptz '2026-03-02' + n * interval '1 minute'",
}


def store_many(device):
    vendor = connection.vendor
    sql(
        "INSERT INTO fleet_weatherstationreading (device_id, timestamp, received_at, temperature) "
        f"SELECT {device.pk}, {AT[vendor]}, {AT[vendor]}, n FROM {SERIES[vendor]} AS numbers"
    )


@pytest.mark.django_db(transaction=True)
def test_a_device_with_many_rows_goes_in_portions(station, neighbour):
    store_many(station)
    fill(neighbour)
    kept = remains(neighbour)

    with CaptureQueriesContext(connection) as captured:
        removal.request(station)

    assert not [q["sql"] for q in captured if "reading" in q["sql"]], (
        "nothing of it takes longer with more rows"
    )
    assert not WeatherStationDevice.objects.get(pk=station.pk).is_active
    assert remains(station)["readings"] == MANY
    sizes = []
    assert removal.work_off(Pace(report=sizes.append)) == 1
    assert max(sizes) <= Pace.rows
    assert remains(station)["device"] == remains(station)["readings"] == 0
    assert remains(neighbour) == kept


@pytest.mark.servers
@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_killed_is_followed_by_another(station):
    """Between the two no message of the device is stored, and the request stays."""
    fill(station, 400)
    removal.request(station)
    work = (
        "from devicehub import removal; from devicehub.db.batches import Pace; removal.work_off(Pace(rows=1))"
    )
    process = subprocess.Popen(
        [sys.executable, "manage.py", "shell", "-c", work],
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert eventually(lambda: 0 < remains(station)["readings"] < 400, 30)
    finally:
        process.kill()
        process.wait()

    left = remains(station)
    assert left["device"] == 1
    assert 0 < left["readings"] < 400
    assert RemovalRequest.objects.count() == 1
    assert pipeline([Message(TOPICS[1], b'{"temperature": 1}', timezone.now())]) == ["failed"]
    assert removal.work_off() == 1
    assert remains(station)["device"] == remains(station)["readings"] == remains(station)["messages"] == 0


@pytest.mark.django_db(transaction=True)
def test_a_device_that_begins_under_the_id_inherits_nothing(station):
    fill(station)
    removal.request(station)
    removal.work_off()

    following = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="next")

    left = {name: count for name, count in remains(following).items() if count}
    assert left == {"device": 1, "quarantine": 1, "commands": 1}  # This is its history.
    assert removal.work_off() == 0
    assert following.is_active


def test_requesting_twice_is_requesting_once(station):
    removal.request(station)
    removal.request(WeatherStationDevice.objects.get())

    assert RemovalRequest.objects.count() == 1


def test_the_pages_of_the_admin_are_fast_with_many_rows(station, client, django_user_model):
    """Counting stops at a limit."""
    store_many(station)
    client.force_login(django_user_model.objects.create_superuser("operator"))
    url = f"/admin/fleet/weatherstationdevice/{station.pk}/delete/"
    began = time.monotonic()

    question = client.get(url).content.decode()
    client.post(url, {"post": "yes"})

    assert time.monotonic() - began < 5
    assert (
        "more than 10,000 readings, 0 messages; disabled at once, then removed in the background" in question
    )
    assert WeatherStationReading.objects.count() == MANY
    assert RemovalRequest.objects.get().device_key == "weatherstation/STATION-001"


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_comes_between_takes_nothing_from_what_an_erasure_reports(station, kind):
    """Both work on the same request: the device is deleted once, with its history."""
    fill(station)
    heard, removed = [], []

    def come_between(_):
        if not removed:
            removed.append(0)
            removed.append(removal.work_off())

    def hear(instance, **_):
        heard.append(instance.device_id)

    pre_delete.connect(hear, sender=WeatherStationDevice)
    try:
        done = removal.erase(kind, "STATION-001", Pace(report=come_between))
    finally:
        pre_delete.disconnect(hear, sender=WeatherStationDevice)

    assert (removed, heard) == ([0, 1], ["STATION-001"])
    assert set(remains(station).values()) == {0}
    assert (done.device, done.readings, done.messages, done.rollups) == (1, 30, 30, 32)
    assert not RemovalRequest.objects.exists()


def test_no_device_at_all_is_no_error(db):
    removal.request_all([])
    removal.check_deletable([])

    assert not RemovalRequest.objects.exists()


def test_a_request_made_while_a_worker_gives_up_on_an_enabled_device_stays(station, monkeypatch):
    removal.request(station)

    def enable_and_request_anew(waiting, pace):
        removal.request(station)
        raise EnabledAgain

    monkeypatch.setattr("devicehub.removal.requests.remove", enable_and_request_anew)

    assert removal.work_off() == 0
    monkeypatch.undo()
    assert removal.work_off() == 1
    assert not WeatherStationDevice.objects.filter(pk=station.pk).exists()
