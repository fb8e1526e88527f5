"""Passwords: any text, compared exactly; accepted stored hashes, and their expiry."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from authsvc.core import passwords
from authsvc.core.access import Reason
from fleet.models import WeatherStationDevice
from rig.asking import DENIED, OK, STATIONS, reasons, sql
from rig.verifications import count_verifications

pytestmark = pytest.mark.usefixtures("nothing_pending")


# ---------------------------------------------------------------- passwords and identity


class TestPasswords:
    def test_any_text_can_be_a_password(self, login, station):
        """Passwords are compared by code point: not trimmed, folded or normalised."""
        for password in [
            "x",
            "x" * 4_096,
            "ä" * 2_048,
            "\U0001f511" * 1_024,
            "pass word ",
            " ",
            "\t\n",
            "\u202e\u200b",
            "e\u0301",
            "%00%",
            '"\\',
            "True",
            "{SSHA256}",
        ]:
            WeatherStationDevice.objects.update(mqtt_password_hash=passwords.hash_generated(password))

            assert login(station, password) == OK
            for other in (password + " ", password[:-1], password + "x", " " + password, "é" + password[1:]):
                assert login(station, other) == DENIED

    def test_the_normalised_form_is_another_password(self, login, station):
        WeatherStationDevice.objects.update(mqtt_password_hash=passwords.hash_generated("\u00e9"))

        assert login(station, "\u00e9") == OK
        assert login(station, "e\u0301") == DENIED

    @pytest.mark.parametrize(
        "password", ["x" * 4_097, "ä" * 2_049, "\U0001f511" * 1_025, "x" * 65_535], ids=len
    )
    def test_a_longer_one_is_refused_without_hashing(self, login, station, monkeypatch, password):
        hashed = count_verifications(monkeypatch)

        assert login(station, password) == DENIED
        assert login(station, password, username="stranger") == DENIED
        assert hashed == []
        assert reasons() == {Reason.PASSWORD_TOO_LONG}

    @pytest.mark.parametrize(
        "password", ["", "\x00", "{password}\x00", "\x00{password}", "{password}\x00x"], ids=ascii
    )
    def test_empty_and_nul_are_never_a_password(self, login, station, password):
        """C strings end at a NUL: characters after it must not be ignored."""
        assert login(station, password.format(password=station.password)) == DENIED

        WeatherStationDevice.objects.update(mqtt_password_hash=passwords.hash_generated(""))
        assert login(station, "") == DENIED
        WeatherStationDevice.objects.update(mqtt_password_hash="")
        assert login(station, "") == DENIED

    def test_a_stored_text_that_is_not_an_accepted_hash_is_a_denial(self, login, station, caplog):
        """It has its own reason, is not a fault, and is quick for any cost in the text."""
        begun = time.process_time()

        for stored in [
            "plaintext",
            "x" * 256,
            " ",
            "!",
            "*",
            "{SSHA256}",
            "{SSHA256}!!!!",
            "{SSHA256}AAAA",
            "{SSHA256}" + "A" * 200,
            "{ssha256}AAAA",
            "{PLAIN}plaintext",
            "{CLEARTEXT}plaintext",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8",
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
            "$2b$31$" + "a" * 53,
            "$6$rounds=999999999$salt$" + "a" * 86,
            "$argon2id$v=19$m=4294967295,t=4294967295,p=1$c2FsdHNhbHQ$aGFzaA",
            "pbkdf2_sha256$999999999$salt$aGFzaA==",
            "PBKDF2$sha512$999999999$c2FsdA==$aGFzaA==",
            "\u00e4",
            "None",
            "True",
        ]:
            sql(f"UPDATE {STATIONS} SET mqtt_password_hash = %s", stored)
            for password in (stored, station.password, "plaintext", "password"):
                assert login(station, password) == DENIED, stored

        assert time.process_time() - begun < 5
        assert reasons() == {Reason.UNUSABLE_HASH}
        assert "auth.fault" not in caplog.text

    def test_a_truncated_hash_is_a_denial(self, login, station):
        whole = passwords.hash_generated("right")

        for size in range(1, len(whole)):
            sql(f"UPDATE {STATIONS} SET mqtt_password_hash = %s", whole[:size])
            assert login(station, "right") == DENIED, size
        sql(f"UPDATE {STATIONS} SET mqtt_password_hash = %s", whole)
        assert login(station, "right") == OK

    def test_an_unusable_hash_does_not_spoil_the_previous_one(self, login, station):
        WeatherStationDevice.objects.update(
            mqtt_password_hash="plaintext",
            previous_password_hash=passwords.hash_generated("old"),
            previous_valid_until=timezone.now() + timedelta(hours=1),
        )

        assert login(station, "old") == OK
        assert login(station, "plaintext") == DENIED

    def test_a_previous_password_is_valid_until_its_date(self, login, station):
        def keep_old(until):
            WeatherStationDevice.objects.update(
                previous_password_hash=passwords.hash_generated("old"), previous_valid_until=until
            )

        keep_old(timezone.now() + timedelta(seconds=30))
        assert login(station, "old") == OK
        assert login(station) == OK
        keep_old(timezone.now() - timedelta(seconds=1))
        assert login(station, "old") == DENIED
        assert login(station) == OK
        assert reasons() == {Reason.EXPIRED_PASSWORD}
        keep_old(None)
        assert login(station, "old") == DENIED

    def test_a_password_expires(self, login, station):
        WeatherStationDevice.objects.update(password_expires_at=timezone.now() + timedelta(seconds=30))
        assert login(station) == OK

        WeatherStationDevice.objects.update(password_expires_at=timezone.now() - timedelta(seconds=1))
        assert login(station) == DENIED
        assert reasons() == {Reason.EXPIRED_PASSWORD}
        assert login(station, "wrong") == DENIED
        assert reasons() == {Reason.EXPIRED_PASSWORD, Reason.WRONG_PASSWORD}

    def test_a_date_in_another_time_zone_is_converted(self, login, station):
        """An offset that SQL wrote is respected."""
        later = (timezone.now() + timedelta(hours=1)).replace(microsecond=0)
        for offset in (-11, 0, 12):
            local = later.astimezone(timezone.get_fixed_timezone(offset * 60))
            sql(f"UPDATE {STATIONS} SET password_expires_at = %s", str(local))
            assert login(station) == OK
            local = (later - timedelta(hours=2)).astimezone(timezone.get_fixed_timezone(offset * 60))
            sql(f"UPDATE {STATIONS} SET password_expires_at = %s", str(local))
            assert login(station) == DENIED

    def test_new_credentials_end_the_old_ones_with_the_next_question(self, login, station):
        assert login(station) == OK

        new = station.device.generate_credentials()
        station.device.save()

        assert login(station) == DENIED
        assert login(station, new["mqtt_password"]) == OK

    def test_an_api_key_is_not_a_password(self, login, station):
        assert login(station, station.api_key) == DENIED
        assert login(station, station.device.api_key) == DENIED
        assert login(station, station.device.mqtt_password_hash) == DENIED

    def test_a_login_writes_nothing(self, login, station):
        before = WeatherStationDevice.objects.values().get()

        assert login(station) == OK
        assert login(station, "wrong") == DENIED

        assert WeatherStationDevice.objects.values().get() == before
