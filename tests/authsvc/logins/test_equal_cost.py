"""Every refused login costs the same verifications, for any name."""

from __future__ import annotations

import pytest

from authsvc.core import authority
from authsvc.models import Account
from fleet.models import WeatherStationDevice
from rig.asking import DENIED
from rig.verifications import count_verifications

pytestmark = pytest.mark.usefixtures("nothing_pending")


class TestEqualCost:
    """Time does not show which names exist: verifications are counted here, and timed in test_timing.py."""

    EXISTING = authority.SECRETS
    STRANGER = EXISTING + 1  # One more in place of the missing row.

    @pytest.fixture
    def cost(self, login, monkeypatch):
        def one(who, password=None, **fields):
            with monkeypatch.context() as patch:
                hashed = count_verifications(patch)
                assert login(who, password, **fields) == DENIED
            return len(hashed)

        return one

    def test_of_every_refused_device(self, cost, station):
        assert cost(station, "wrong") == self.EXISTING
        assert cost(station, username="stranger") == self.STRANGER
        assert cost(station, username="a/b") == self.STRANGER
        assert cost(station, clientid="x") == 1  # The password is right.
        for change in ({"mqtt_password_hash": ""}, {"is_active": False}):
            WeatherStationDevice.objects.update(**change)
            assert cost(station) == self.EXISTING
            assert cost(station, "wrong") == self.EXISTING

    def test_of_an_account(self, cost):
        account = Account(username="ingest", is_active=False)
        account.generate_password()
        account.save()
        account.password = "wrong"

        assert cost(account) == self.EXISTING
        Account.objects.update(is_active=True)
        assert cost(account) == self.EXISTING
        Account.objects.update(password_hash="")
        assert cost(account) == self.EXISTING

    def test_of_an_ambiguous_name(self, cost, station):
        Account.objects.create(username=station.username)

        assert cost(station) == self.EXISTING

    def test_of_an_empty_password(self, cost, station):
        """The name may exist or not: EMQX sends an empty text for an absent password."""
        assert cost(station, "") == self.EXISTING
        assert cost(station, "", username="stranger") == self.STRANGER

    def test_of_a_password_that_is_too_long(self, cost, station):
        assert cost(station, "x" * 5_000) == cost(station, "x" * 5_000, username="stranger")

    def test_of_a_hash_that_cannot_be_used(self, station, login, monkeypatch):
        """The first is refused by its format; the work is that of the others."""
        WeatherStationDevice.objects.update(mqtt_password_hash="plaintext")
        hashed = count_verifications(monkeypatch)

        assert login(station) == DENIED
        assert len([stored for stored in hashed if stored != "plaintext"]) == self.EXISTING
