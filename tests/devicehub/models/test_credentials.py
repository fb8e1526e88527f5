"""Credentials that a device generates: their form, their hashes, and that no secret is shown."""

import hashlib
import math
import re

import pytest
from django.db import connection
from django.utils import timezone

from fleet.models import WeatherStationDevice

# Credentials


def test_credentials_are_three_texts(station):
    credentials = station.generate_credentials()

    assert set(credentials) == {"mqtt_username", "mqtt_password", "api_key"}
    assert all(type(value) is str for value in credentials.values())


def test_username_is_app_model_and_id(station):
    credentials = station.generate_credentials()

    assert credentials["mqtt_username"] == "fleet-weatherstationdevice-STATION-001"
    assert station.mqtt_username == "fleet-weatherstationdevice-STATION-001"


def test_api_key_is_64_hex_digits(station):
    assert re.fullmatch(r"[0-9a-f]{64}", station.generate_credentials()["api_key"])


def test_password_is_letters_and_digits(station):
    """There is no `-`: mosquitto-go-auth joins its cache key with it."""
    assert re.fullmatch(r"[A-Za-z0-9]+", station.generate_credentials()["mqtt_password"])


def test_password_has_256_bits(station):
    passwords = [station.generate_credentials()["mqtt_password"] for _ in range(60)]
    shortest = min(map(len, passwords))

    assert shortest * math.log2(62) >= 256
    assert len(set("".join(passwords))) == 62


def test_credentials_are_new_each_time(station):
    one, other = station.generate_credentials(), station.generate_credentials()

    assert one["mqtt_password"] != other["mqtt_password"]
    assert one["api_key"] != other["api_key"]


def test_new_credentials_end_the_old_ones(station):
    old = station.generate_credentials()["mqtt_password"]
    station.generate_credentials()

    assert not station.check_mqtt_password(old)
    assert not station.previous_password_hash


def test_new_credentials_end_an_overlap(station):
    station.previous_password_hash, station.previous_valid_until = "{SSHA256}x", timezone.now()
    station.generate_credentials()

    assert (station.previous_password_hash, station.previous_valid_until) == ("", None)


def test_the_api_key_column_holds_a_digest(station):
    key = station.generate_credentials()["api_key"]

    assert station.api_key == hashlib.sha256(key.encode()).hexdigest()


def test_no_column_holds_a_secret(stored):
    credentials = stored.generate_credentials()
    stored.save()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {stored._meta.db_table}")
        row = " ".join(map(str, cursor.fetchone()))

    assert credentials["mqtt_username"] in row
    assert credentials["mqtt_password"] not in row
    assert credentials["api_key"] not in row


def test_the_caller_saves(stored):
    stored.generate_credentials()
    fresh = WeatherStationDevice.objects.get(pk=stored.pk)

    assert (fresh.mqtt_username, fresh.mqtt_password_hash, fresh.api_key) == (None, "", None)


def test_credentials_can_be_made_before_the_first_save(db, station):
    credentials = station.generate_credentials()
    station.save()
    fresh = WeatherStationDevice.objects.get(mqtt_username=credentials["mqtt_username"])

    assert fresh.check_mqtt_password(credentials["mqtt_password"])


def test_credentials_say_when_they_changed(station):
    before = timezone.now()
    station.generate_credentials()

    assert before <= station.credentials_changed_at <= timezone.now()


def test_password_hash_fits_its_column(station):
    station.generate_credentials()

    assert 0 < len(station.mqtt_password_hash) <= 256


def test_equal_looking_devices_have_different_hashes(station):
    """The hash is salted, and the secret is new."""
    station.generate_credentials()
    one = station.mqtt_password_hash
    station.generate_credentials()

    assert station.mqtt_password_hash != one


def test_the_right_password_is_accepted(station):
    assert station.check_mqtt_password(station.generate_credentials()["mqtt_password"]) is True


@pytest.mark.parametrize("wrong", ["", "x", "\x00", "\ud800", "ä" * 40, "x" * 5_000, "x" * 1_000_000])
def test_a_wrong_password_is_refused(station, wrong):
    station.generate_credentials()

    assert station.check_mqtt_password(wrong) is False


@pytest.mark.parametrize("change", [str.lower, str.upper, str.strip, lambda p: p[:-1], lambda p: f"{p} "])
def test_an_almost_right_password_is_refused(station, change):
    password = station.generate_credentials()["mqtt_password"]
    changed = change(password)

    assert station.check_mqtt_password(changed) is (changed == password)


@pytest.mark.parametrize(
    "stored_hash", ["", "!", "x", "plaintext", "{SSHA256}", "{SSHA256}!", "$argon2id$", "\x00"]
)
@pytest.mark.parametrize("raw", ["", "x", "plaintext"])
def test_no_password_fits_an_unusable_hash(station, stored_hash, raw):
    station.mqtt_password_hash = stored_hash

    assert station.check_mqtt_password(raw) is False


def test_the_hash_is_no_password(station):
    station.generate_credentials()

    assert station.check_mqtt_password(station.mqtt_password_hash) is False


def test_api_key_is_no_mqtt_password(station):
    assert station.check_mqtt_password(station.generate_credentials()["api_key"]) is False


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{!r}".format, lambda d: repr([d])])
def test_no_secret_shows_when_a_device_is_printed(station, show):
    credentials = station.generate_credentials()
    text = show(station)

    for secret in (
        credentials["mqtt_password"],
        credentials["api_key"],
        station.mqtt_password_hash,
        station.api_key,
    ):
        assert secret not in text
