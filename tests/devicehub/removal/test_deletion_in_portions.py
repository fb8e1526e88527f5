"""Deletion of a device with many rows, in several transactions."""

from concurrent.futures import ThreadPoolExecutor, wait
from io import StringIO

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, models
from django.utils import timezone
from structlog.testing import capture_logs

from devicehub import removal
from devicehub.db.batches import Pace
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message
from devicehub.models import QuarantinedMessage, RemovalRequest
from devicehub.removal import requests
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.hub import database_url, eventually
from rig.telemetry import fill, remains, sql, topics_to_clear


@pytest.fixture
def veto():
    """Connect a project's receiver that refuses all deletions; return a function that exempts devices by id."""
    allowed = []

    def refuse(sender, instance, **_):
        if instance.device_id not in allowed:
            raise models.ProtectedError("it is under warranty", {instance})

    models.signals.pre_delete.connect(refuse, sender=WeatherStationDevice)
    yield allowed.extend
    models.signals.pre_delete.disconnect(refuse, sender=WeatherStationDevice)


@pytest.mark.django_db(transaction=True)
class TestOutsideTransactions:
    """A deletion in portions runs in several transactions."""

    def test_a_query_set_that_filters_by_what_deleting_changes_deletes_all_it_found(self, station, neighbour):
        fill(station)
        fill(neighbour)
        WeatherStationDevice.objects.filter(pk=neighbour.pk).update(is_active=False)

        count, by_model = WeatherStationDevice.objects.filter(is_active=True).delete()

        assert (count, by_model["fleet.WeatherStationDevice"]) == (61, 1)
        assert remains(station)["device"] == remains(station)["readings"] == 0
        assert remains(neighbour)["readings"] == 30

    def test_a_sliced_query_set_is_refused_as_by_django(self, station):
        with pytest.raises(TypeError, match="Cannot use 'limit' or 'offset' with delete"):
            WeatherStationDevice.objects.all()[:1].delete()

        assert WeatherStationDevice.objects.get().is_active

    @pytest.mark.parametrize(
        "delete",
        [
            lambda device: device.delete(),
            lambda device: WeatherStationDevice.objects.order_by("-device_id").delete(),
        ],
        ids=["model", "query set"],
    )
    def test_a_receiver_that_refuses_keeps_everything(self, station, neighbour, veto, delete):
        """Also if it refuses one of many devices."""
        veto(["STATION-002"])
        fill(station)
        before = remains(station)

        with pytest.raises(models.ProtectedError):
            delete(station)

        assert remains(station) == before
        assert {device.is_active for device in WeatherStationDevice.objects.all()} == {True}
        assert topics_to_clear() == []

    def test_a_receiver_that_refuses_an_erasure_keeps_the_device_disabled(self, station, neighbour, veto):
        """The receiver is called when the device itself is deleted; its rows are gone by then."""
        veto(["STATION-002"])
        fill(station)

        with pytest.raises(CommandError, match=r"^weatherstation/STATION-001 cannot be deleted: it is"):
            call_command("erase_device", "weatherstation", "STATION-001", "--yes", stdout=StringIO())

        left = remains(station)
        assert (left["device"], left["readings"], left["grants"]) == (1, 0, 1)
        assert not WeatherStationDevice.objects.get(pk=station.pk).is_active
        veto(["STATION-001"])
        assert removal.work_off() == 1

    @pytest.mark.parametrize(
        "delete",
        [
            lambda device: device.delete(),
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).delete(),
            lambda device: (removal.request(device), removal.work_off()),
            lambda device: removal.erase(registry.of(device), device.device_id, Pace()),
        ],
        ids=["model", "query set", "request", "erase"],
    )
    def test_receivers_are_called_once(self, station, delete):
        """They are called in a transaction that is not rolled back, so that they may write."""
        fill(station)
        heard = []

        def hear(signal, instance, **_):
            heard.append((signal is models.signals.pre_delete, instance.device_id))

        for signal in (models.signals.pre_delete, models.signals.post_delete):
            signal.connect(hear, sender=WeatherStationDevice)
        try:
            delete(station)
        finally:
            for signal in (models.signals.pre_delete, models.signals.post_delete):
                signal.disconnect(hear, sender=WeatherStationDevice)

        assert heard == [(True, "STATION-001"), (False, "STATION-001")]

    def test_a_foreign_key_that_keeps_a_device_keeps_its_rows(self, station, repair):
        fill(station)
        kept = repair.objects.create(device=station)
        before = remains(station)

        with pytest.raises(models.ProtectedError):
            station.delete()
        with pytest.raises(CommandError, match=r"^weatherstation/STATION-001 cannot be deleted: [^\n]+$"):
            call_command("erase_device", "weatherstation", "STATION-001", "--yes", stdout=StringIO())

        assert remains(station) == before
        kept.delete()
        WeatherStationDevice.objects.get().delete()
        assert not WeatherStationReading.objects.exists()

    def test_rows_that_a_project_refers_to_go_as_django_does_it(self, station, repair):
        fill(station)
        repair.objects.create(reading=WeatherStationReading.objects.latest("timestamp"))

        done = removal.erase(registry.of(station), "STATION-001", Pace(rows=7))

        assert (done.device, done.readings, done.messages) == (1, 30, 30)
        assert not repair.objects.exists()

    def test_one_that_cannot_be_removed_does_not_keep_the_others(self, station, neighbour, monkeypatch):
        """The refusal is logged once."""
        removal.request(station)
        removal.request(neighbour)
        fill(station)

        def refuse(sender, instance, **_):
            if instance.device_id == "STATION-001":
                raise RuntimeError("not today")

        models.signals.pre_delete.connect(refuse, sender=WeatherStationDevice)
        monkeypatch.setattr(requests, "_refused", set())
        try:
            with capture_logs() as logged:
                assert [removal.work_off() for _ in range(3)] == [1, 0, 0]
        finally:
            models.signals.pre_delete.disconnect(refuse, sender=WeatherStationDevice)

        assert [line["event"] for line in logged] == ["removal.refused"]
        assert [r.device_key for r in RemovalRequest.objects.all()] == ["weatherstation/STATION-001"]
        assert not WeatherStationDevice.objects.get().is_active
        assert removal.work_off() == 1

    def test_one_that_is_enabled_while_it_goes_keeps_what_it_has_left(self, station):
        fill(station)
        removal.request(station)

        def enable(_):
            WeatherStationDevice.objects.update(is_active=True)

        assert removal.work_off(Pace(rows=7, report=enable)) == 0

        assert remains(station)["device"] == 1
        assert remains(station)["readings"] == 23
        assert not RemovalRequest.objects.exists()

    def test_one_that_is_enabled_after_its_last_row_is_not_deleted(self, station, monkeypatch):
        removal.request(station)

        def drain(*_):
            WeatherStationDevice.objects.update(is_active=True)

        monkeypatch.setattr("devicehub.removal.deletion.drain_rows", drain)
        assert removal.work_off() == 0

        assert remains(station)["device"] == 1

    @pytest.mark.postgresql_only
    def test_one_that_somebody_is_about_to_enable_is_waited_for(self, station, monkeypatch):
        removal.request(station)
        table = WeatherStationDevice._meta.db_table
        with psycopg.connect(database_url()) as other, ThreadPoolExecutor(1) as pool:
            other.execute(f"UPDATE {table} SET is_active = true")

            def work_off():
                try:
                    return removal.work_off()
                finally:
                    connections.close_all()

            removing = pool.submit(work_off)
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            assert eventually(lambda: sql(waiting)[0][0] > 0, 10)
            other.commit()
            assert removing.result(10) == 0

        assert remains(station)["device"] == 1

    @pytest.mark.postgresql_only  # SQLite has only one writer.
    @pytest.mark.parametrize("way", ["model", "query set"])
    def test_a_message_that_comes_while_the_device_goes_is_no_obstacle(self, station, way):
        """Without the lock it would be stored between its rows and the device, whose deletion would then fail."""
        stored = []

        def store(message):
            try:
                return pipeline([message])
            finally:
                connections.close_all()

        def ingest(execute, statement, *rest):
            if statement.startswith('DELETE FROM "fleet_weatherstationdevice"') and not stored:
                body = b'{"temperature": 1}'
                message = Message("things/weatherstation/STATION-001/data", body, timezone.now())
                stored.append(pool.submit(store, message))
                wait(stored, 1)
            return execute(statement, *rest)

        with ThreadPoolExecutor(1) as pool, connection.execute_wrapper(ingest):
            station.delete() if way == "model" else WeatherStationDevice.objects.all().delete()
            assert stored[0].result(10) == ["failed"]

        assert set(remains(station).values()) == {0, 1}  # The late message is in the quarantine.
        assert QuarantinedMessage.objects.get().reason == "unknown_device"

    def test_a_request_does_not_reach_a_next_device_of_the_same_id(self, station):
        removal.request(station)
        WeatherStationDevice.objects.get().delete()
        WeatherStationDevice.objects.create(device_id="STATION-001", is_active=False)

        assert removal.work_off() == 0

        assert WeatherStationDevice.objects.count() == 1

    def test_an_instance_from_before_it_was_enabled_is_disabled_as_well(self, station):
        station.is_active = False

        removal.request(station)

        assert not WeatherStationDevice.objects.get().is_active

    def test_deleting_what_is_gone_takes_nothing_from_a_next_device_of_the_same_id(self, station):
        gone = WeatherStationDevice.objects.get()
        station.delete()
        following = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="next")
        fill(following)
        before = remains(following)

        gone.delete()

        assert remains(following) == before
