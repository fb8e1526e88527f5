"""Device ids and usernames: which are legal, and that no way of saving accepts another."""

import hashlib
import re

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from fleet.models import WeatherStationDevice
from rig.examples import examples
from rig.fields import clean_fields

pytestmark = pytest.mark.sqlite_first

REFUSED = (ValidationError, ValueError)
DEVICE_ID = re.compile(r"[A-Za-z0-9_:-]{1,128}\Z", re.ASCII)
USERNAME = re.compile(r"[A-Za-z0-9_.@:=-]{1,128}\Z", re.ASCII)
BAD_DEVICE_IDS = {
    "empty": "",
    "too long": "x" * 129,
    "dot": "ST.1",
    "plus": "+",
    "hash": "a#",
    "slash": "a/b",
    "dollar": "$SYS",
    "space": "a b",
    "NUL": "a\x00b",
    "line end": "a\n",
    "control": "a\x7f",
    "umlaut": "stätion",
    "digit of another script": "station-\u0663",
    "full width letter": "\uff21",
    "lone surrogate": "\ud800",
    "percent": "a%2Fb",
}
GOOD_DEVICE_IDS = ["STATION-001", "a", "x" * 128, "urn:imei:490154203237518", "_-:", "-", "0"]
BAD_USERNAMES = ["", "undefined", "null", "None", "guest", "a b", "a/b", "+", "#", "a\n", "ä", "x" * 129]

good_ids = st.from_regex(r"[A-Za-z0-9_:-]{1,128}", fullmatch=True)
thorough = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=examples(25),
)


# Usernames


def test_a_username_of_128_characters_is_kept():
    device = WeatherStationDevice(device_id="x" * (128 - len("fleet-weatherstationdevice-")))

    assert device.generate_credentials()["mqtt_username"] == f"fleet-weatherstationdevice-{device.device_id}"


def test_a_longer_username_ends_in_a_digest_of_the_id():
    device_id = "x" * (129 - len("fleet-weatherstationdevice-"))
    username = WeatherStationDevice(device_id=device_id).generate_credentials()["mqtt_username"]
    whole = f"fleet-weatherstationdevice-{device_id}"

    assert username == f"{whole[:111]}-{hashlib.sha256(device_id.encode()).hexdigest()[:16]}"
    assert len(username) == 128


@thorough
@given(device_id=good_ids)
@example(device_id="x" * 101)
@example(device_id="x" * 102)
@example(device_id="x" * 128)
def test_every_username_is_short_enough_and_legal(device_id):
    username = WeatherStationDevice(device_id=device_id).generate_credentials()["mqtt_username"]

    assert USERNAME.match(username)
    assert username.startswith("fleet-weatherstationdevice-")


@thorough
@given(one=good_ids, other=good_ids, common=st.integers(min_value=0, max_value=127))
@example(one="x" * 127 + "a", other="x" * 127 + "b", common=0)
@example(one="x" * 102, other="x" * 103, common=0)
def test_two_ids_never_get_one_username(one, other, common):
    one, other = (f"{'s' * common}{tail}"[:128] for tail in (one, other))
    assume(one != other)

    made = {WeatherStationDevice(device_id=i).generate_credentials()["mqtt_username"] for i in (one, other)}

    assert len(made) == 2


@thorough
@given(device_id=good_ids)
def test_the_username_of_an_id_is_always_the_same(device_id):
    made = {
        WeatherStationDevice(device_id=device_id).generate_credentials()["mqtt_username"] for _ in range(2)
    }

    assert len(made) == 1


class TestUsernamesRefused:
    def test_by_save(self, stored):
        for username in BAD_USERNAMES:
            stored.mqtt_username = username
            with pytest.raises(REFUSED), transaction.atomic():
                stored.save()

    def test_by_create(self, db):
        for username in BAD_USERNAMES:
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.create(device_id="STATION-002", mqtt_username=username)

    def test_by_bulk_create(self, db):
        for username in BAD_USERNAMES:
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.bulk_create(
                    [WeatherStationDevice(device_id="STATION-002", mqtt_username=username)]
                )

    def test_by_update(self, stored):
        for username in BAD_USERNAMES:
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.update(mqtt_username=username)

    def test_by_bulk_update(self, stored):
        for username in BAD_USERNAMES:
            stored.mqtt_username = username
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.bulk_update([stored], ["mqtt_username"])


@pytest.mark.parametrize("username", ["a", "x" * 128, "meter.7@plant:a=b_c-d", "Guest", "none", "NULL"])
def test_a_legal_username_is_kept(stored, username):
    stored.mqtt_username = username
    stored.save()

    assert WeatherStationDevice.objects.get(mqtt_username=username) == stored


# Device ids


class TestDeviceIdsRefused:
    def test_by_full_clean(self):
        for device_id in BAD_DEVICE_IDS.values():
            with pytest.raises(ValidationError):
                clean_fields(WeatherStationDevice(device_id=device_id), "device_id")

    def test_by_save(self, db):
        for device_id in BAD_DEVICE_IDS.values():
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice(device_id=device_id).save()
            assert not WeatherStationDevice.objects.exists()

    def test_by_saving_an_existing_device(self, stored):
        for device_id in BAD_DEVICE_IDS.values():
            stored.device_id = device_id
            with pytest.raises(REFUSED), transaction.atomic():
                stored.save(update_fields=["device_id"])

    def test_by_create(self, db):
        for device_id in BAD_DEVICE_IDS.values():
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.create(device_id=device_id)

    def test_by_bulk_create(self, db):
        for device_id in BAD_DEVICE_IDS.values():
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.bulk_create(
                    [WeatherStationDevice(device_id="STATION-002"), WeatherStationDevice(device_id=device_id)]
                )
            assert not WeatherStationDevice.objects.exists()

    def test_by_bulk_create_that_ignores_conflicts(self, db):
        for device_id in BAD_DEVICE_IDS.values():
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.bulk_create(
                    [WeatherStationDevice(device_id=device_id)], ignore_conflicts=True
                )

    def test_by_update(self, stored):
        for device_id in BAD_DEVICE_IDS.values():
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.update(device_id=device_id)
            stored.refresh_from_db()
            assert stored.device_id == "STATION-001"

    def test_by_bulk_update(self, stored):
        for device_id in BAD_DEVICE_IDS.values():
            stored.device_id = device_id
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.bulk_update([stored], ["device_id"])

    def test_by_update_or_create(self, stored):
        for device_id in BAD_DEVICE_IDS.values():
            with pytest.raises(REFUSED), transaction.atomic():
                WeatherStationDevice.objects.update_or_create(pk=stored.pk, defaults={"device_id": device_id})

    def test_by_generate_credentials(self):
        for device_id in BAD_DEVICE_IDS.values():
            device = WeatherStationDevice(device_id=device_id)
            with pytest.raises(REFUSED):
                device.generate_credentials()
            assert (device.mqtt_username, device.mqtt_password_hash, device.api_key) == (None, "", None)


@pytest.mark.parametrize("device_id", GOOD_DEVICE_IDS)
def test_a_legal_device_id_is_kept(db, device_id):
    WeatherStationDevice(device_id=device_id).save()

    assert WeatherStationDevice.objects.get(device_id=device_id)


@pytest.mark.parametrize("device_id", GOOD_DEVICE_IDS)
def test_a_device_can_be_renamed_by_update(stored, device_id):
    WeatherStationDevice.objects.update(device_id=device_id)
    stored.refresh_from_db()

    assert stored.device_id == device_id


def test_a_query_for_an_illegal_id_is_empty(stored):
    """Only writing is checked: a query for an illegal id has an empty result, not an error."""
    assert not WeatherStationDevice.objects.filter(device_id="a/b").exists()


@thorough
@given(device_id=st.one_of(st.text(max_size=140), good_ids, good_ids.map(lambda text: f"{text}\n")))
def test_exactly_the_legal_ids_validate(device_id):
    try:
        clean_fields(WeatherStationDevice(device_id=device_id), "device_id")
        accepted = True
    except ValidationError:
        accepted = False

    assert accepted is bool(DEVICE_ID.match(device_id))


@thorough
@given(device_id=st.one_of(st.text(max_size=140), good_ids))
def test_exactly_the_legal_ids_are_saved(db, device_id):
    with transaction.atomic():
        try:
            WeatherStationDevice(device_id=device_id).save()
            accepted = True
        except REFUSED:
            accepted = False
        transaction.set_rollback(True)

    assert accepted is bool(DEVICE_ID.match(device_id))
