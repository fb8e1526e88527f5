"""Identities: disabled, deleted, renamed, and the client ids that belong to them."""

from __future__ import annotations

import pytest
from django.db import transaction

from authsvc.core.access import Reason
from authsvc.models import Account
from devicehub import provisioning
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.asking import DENIED, OK, STATIONS, reasons, sql
from rig.cast import provision

pytestmark = pytest.mark.usefixtures("nothing_pending")


class TestIdentity:
    """Every change, by any writer, is in force with the next question."""

    @pytest.mark.parametrize("how", ["orm", "sql"])
    def test_disabled_and_enabled(self, login, may, station, how):
        def turn(active):
            if how == "orm":
                WeatherStationDevice.objects.update(is_active=active)
            else:
                sql(f"UPDATE {STATIONS} SET is_active = %s", active)

        assert login(station) == OK
        assert may(station, 2, station.topic("data"))
        turn(False)
        assert login(station) == DENIED
        assert not may(station, 2, station.topic("data"))
        assert reasons() == {Reason.DISABLED}
        turn(True)
        assert login(station) == OK
        assert may(station, 2, station.topic("data"))

    @pytest.mark.parametrize("how", ["orm", "sql"])
    def test_deleted(self, login, may, station, how):
        assert login(station) == OK
        if how == "orm":
            station.device.delete()
        else:
            sql(f"DELETE FROM {STATIONS}")

        assert login(station) == DENIED
        assert not may(station, 2, station.topic("data"))
        assert reasons() == {Reason.UNKNOWN_USERNAME}

    def test_renamed(self, login, station):
        sql(f"UPDATE {STATIONS} SET mqtt_username = %s", "renamed")

        assert login(station) == DENIED
        assert login(station, username="renamed", clientid="renamed") == OK

    def test_a_change_that_is_rolled_back_has_no_effect(self, login, station):
        with transaction.atomic():
            WeatherStationDevice.objects.update(is_active=False)
            transaction.set_rollback(True)

        assert login(station) == OK

    def test_client_ids_of_a_device(self, login, may, station, neighbour):
        WeatherStationDevice.objects.filter(pk=station.device.pk).update(mqtt_client_id="radio-7")

        for client_id in (station.username, "STATION-001", "radio-7"):
            assert login(station, clientid=client_id) == OK
            assert may(station, 2, station.topic("data"), clientid=client_id)
        for client_id in (
            neighbour.username,
            "STATION-002",
            "station-001",
            "STATION-00",
            "STATION-0011",
            "radio-",
            "*",
            " ",
        ):
            assert login(station, clientid=client_id) == DENIED
            assert not may(station, 2, station.topic("data"), clientid=client_id)
        assert reasons() == {Reason.CLIENT_ID}

    def test_a_wrong_password_is_reported_before_a_wrong_client_id(self, login, station):
        """Otherwise a client without the password would learn the client ids of a name."""
        assert login(station, "wrong", clientid="x") == DENIED

        assert reasons() == {Reason.WRONG_PASSWORD}

    def test_client_ids_of_an_account(self, login):
        account, account_password = provisioning.create_account("ingest", client_ids=["ingest-*", "backup"])
        account.password = account_password

        for client_id in ("ingest", "ingest-1", "ingest-", "backup"):
            assert login(account, clientid=client_id) == OK
        for client_id in (
            "ingest1",
            "Ingest-1",
            "backup-1",
            "*",
            "x",
            "fleet-weatherstationdevice-STATION-001",
        ):
            assert login(account, clientid=client_id) == DENIED
        sql(f"UPDATE {Account._meta.db_table} SET client_ids = %s", '["*"]')
        assert login(account, clientid="anything") == OK
        sql(f"UPDATE {Account._meta.db_table} SET client_ids = %s", "[]")
        assert login(account, clientid="ingest-1") == DENIED

    def test_the_binding_can_be_lifted(self, login, station, settings):
        settings.AUTHSVC_CLIENT_ID = "any"
        assert login(station, clientid="whatever") == OK
        assert login(station, "wrong", clientid="whatever") == DENIED

        settings.AUTHSVC_CLIENT_ID = "ANY"  # Another word does not lift the binding.
        assert login(station, clientid="whatever") == DENIED


def test_the_two_types_of_devices_do_not_share_rights(may):
    """The same id under two types is two devices with different topics."""
    valve = provision("V1", "irrigationvalve")
    assert IrrigationValveDevice.objects.exists()

    assert may(valve, 2, "things/irrigationvalve/V1/data")
    for topic in (
        "things/weatherstation/V1/data",
        "things/irrigationvalve/V1/cmd",
        "things/irrigationvalve/v1/data",
    ):
        assert not may(valve, 2, topic)
