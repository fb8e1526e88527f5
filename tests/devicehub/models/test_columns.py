"""The columns of every device, reading and message, and their database constraints."""

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from devicehub import DeviceType, Reading, StateField, reading_types
from devicehub.models import BaseDevice, BaseMessage, DeviceStatus, ProcessingStatus
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from rig.fields import clean_fields, column

# Columns

DEVICE_COLUMNS = {
    "device_id": ("CharField", {"max_length": 128, "unique": True, "db_index": True, "null": False}),
    "name": ("CharField", {"max_length": 255, "blank": True, "null": False}),
    "status": ("CharField", {"max_length": 20, "default": "offline", "db_index": True, "null": False}),
    "battery_level": ("FloatField", {"null": True}),
    "last_seen": ("DateTimeField", {"null": True}),
    "firmware_version": ("CharField", {"max_length": 50, "blank": True, "null": False}),
    "is_active": ("BooleanField", {"default": True, "db_index": True, "null": False}),
    "mqtt_username": ("CharField", {"max_length": 128, "unique": True, "null": True}),
    "mqtt_password_hash": ("CharField", {"max_length": 256, "null": False}),
    "api_key": ("CharField", {"max_length": 128, "unique": True, "null": True}),
    "metadata": ("JSONField", {"null": False}),
    "created_at": ("DateTimeField", {"auto_now_add": True, "null": False}),
    "updated_at": ("DateTimeField", {"auto_now": True, "null": False}),
}
OUR_DEVICE_COLUMNS = [
    "mqtt_client_id",
    "previous_password_hash",
    "previous_valid_until",
    "password_expires_at",
    "credentials_changed_at",
    "connected",
    "connected_changed_at",
    "last_message_at",
    "last_reading_at",
    "reported_status",
    "reported_times",
    "site",
]
READING_COLUMNS = {
    "timestamp": ("DateTimeField", {"db_index": True, "null": False}),
    "received_at": ("DateTimeField", {"auto_now_add": True}),
}
MESSAGE_COLUMNS = {
    "topic": ("CharField", {"max_length": 512, "null": False}),
    "payload_json": ("JSONField", {"null": True}),
    "payload_raw": ("BinaryField", {"null": True}),
    "content_type": ("CharField", {"max_length": 100}),
    "correlation_id": ("CharField", {"max_length": 256}),
    "user_properties": ("JSONField", {"null": False}),
    "processing_status": ("CharField", {"default": "pending", "db_index": True, "null": False}),
    "processing_error": ("TextField", {}),
    "received_at": ("DateTimeField", {"auto_now_add": True}),
    "processed_at": ("DateTimeField", {"null": True}),
}
OUR_MESSAGE_COLUMNS = ["digest", "outcome", "notes"]
ALL_COLUMNS = [
    (model, name, kind, options)
    for model, columns in (
        (WeatherStationDevice, DEVICE_COLUMNS),
        (WeatherStationReading, READING_COLUMNS),
        (WeatherStationMessage, MESSAGE_COLUMNS),
    )
    for name, (kind, options) in columns.items()
]


@pytest.mark.parametrize(
    ("model", "name", "kind", "options"), ALL_COLUMNS, ids=[f"{c[0].__name__}.{c[1]}" for c in ALL_COLUMNS]
)
def test_column_is_as_documented(model, name, kind, options):
    field = column(model, name)

    assert field.get_internal_type() == kind
    assert {option: getattr(field, option) for option in options} == options


@pytest.mark.parametrize("name", ["mqtt_username", "api_key", "battery_level", "last_seen", "name"])
def test_column_is_not_indexed_twice(name):
    """`unique` makes an index already; only the columns documented as indexed have `db_index`."""
    assert not column(WeatherStationDevice, name).db_index


@pytest.mark.parametrize(
    ("model", "name", "choices"),
    [
        (WeatherStationDevice, "status", DeviceStatus),
        (WeatherStationMessage, "processing_status", ProcessingStatus),
    ],
)
def test_status_columns_offer_their_enumeration(model, name, choices):
    assert [value for value, _ in column(model, name).choices] == choices.values


@pytest.mark.parametrize(
    ("model", "name"), [(WeatherStationDevice, "metadata"), (WeatherStationMessage, "user_properties")]
)
def test_json_defaults_are_empty_and_not_shared(model, name):
    one, other = model(), model()
    getattr(one, name)["colour"] = "red"

    assert getattr(other, name) == {}


@pytest.mark.parametrize("name", OUR_DEVICE_COLUMNS)
def test_our_device_columns_are_in_the_base(name):
    assert BaseDevice._meta.get_field(name)


@pytest.mark.parametrize("name", OUR_MESSAGE_COLUMNS)
def test_our_message_columns_are_in_the_base(name):
    assert BaseMessage._meta.get_field(name)


@pytest.mark.parametrize(
    "name",
    [
        "previous_valid_until",
        "password_expires_at",
        "credentials_changed_at",
        "connected_changed_at",
        "last_message_at",
        "last_reading_at",
    ],
)
def test_our_dates_are_empty_at_first(name):
    field = column(WeatherStationDevice, name)

    assert field.get_internal_type() == "DateTimeField"
    assert field.null


def test_a_new_device_is_not_connected(station):
    assert station.connected is False


def test_reading_belongs_to_its_device(stored):
    reading = WeatherStationReading.objects.create(device=stored, timestamp=timezone.now(), temperature=20.5)

    assert list(stored.readings.all()) == [reading]


def test_message_belongs_to_its_device(stored, message):
    assert list(stored.messages.all()) == [message]


@pytest.mark.parametrize(
    ("model", "related_name"), [(WeatherStationReading, "readings"), (WeatherStationMessage, "messages")]
)
def test_device_foreign_key(model, related_name):
    field = column(model, "device")

    assert isinstance(field, models.ForeignKey)
    assert field.related_model is WeatherStationDevice
    assert field.remote_field.related_name == related_name
    assert not field.null


@pytest.mark.parametrize("model", [WeatherStationReading, WeatherStationMessage])
def test_rows_of_a_device_are_found_by_an_index(model):
    """That index begins with the device: a second one would be written with each row, and never read."""
    beginnings = [index.fields[0] for index in (*model._meta.indexes, *model._meta.constraints)]

    assert beginnings == ["device"]
    assert not column(model, "device").db_index


def test_a_device_needs_only_its_id(db):
    WeatherStationDevice(device_id="STATION-001").full_clean()


def test_a_message_needs_only_device_and_topic(stored):
    WeatherStationMessage(device=stored, topic="things/weatherstation/STATION-001/data").full_clean()


def test_a_reading_needs_no_value(stored):
    WeatherStationReading(device=stored, timestamp=timezone.now()).full_clean()


def test_device_ids_are_unique(stored):
    with pytest.raises(IntegrityError), transaction.atomic():
        WeatherStationDevice.objects.create(device_id=stored.device_id)


def test_devices_without_credentials_live_side_by_side(stored):
    """NULL, not an empty text, means "none": unique columns may hold any number of NULLs."""
    WeatherStationDevice.objects.create(device_id="STATION-002")

    assert WeatherStationDevice.objects.filter(mqtt_username=None, api_key=None).count() == 2


@pytest.mark.parametrize("name", ["mqtt_username", "api_key"])
def test_no_two_devices_share_a_credential(stored, name):
    WeatherStationDevice.objects.create(device_id="STATION-002", **{name: "one"})

    with pytest.raises(IntegrityError), transaction.atomic():
        WeatherStationDevice.objects.create(device_id="STATION-003", **{name: "one"})


def test_an_unknown_status_does_not_validate():
    with pytest.raises(ValidationError):
        clean_fields(WeatherStationDevice(device_id="a", status="sleeping"), "status")


def test_save_moves_updated_at_and_keeps_created_at(stored):
    created, updated = stored.created_at, stored.updated_at
    stored.save()
    stored.refresh_from_db()

    assert stored.created_at == created
    assert stored.updated_at > updated


@pytest.mark.parametrize(
    "name",
    [
        *DEVICE_COLUMNS,
        *OUR_DEVICE_COLUMNS,
        "id",
        "pk",
        "readings",
        "messages",
        "objects",
        "mark_online",
        "send_command",
        "save",
    ],
)
def test_a_state_field_cannot_take_a_documented_name(declared, name):
    """Otherwise it would silently replace a column of every device."""
    with pytest.raises(Exception, match=name):
        declared(type("Clash", (DeviceType,), {name: StateField(type="string")}))


@pytest.mark.parametrize("name", ["device", "timestamp", "received_at", "id", "pk", "save"])
def test_a_reading_cannot_take_a_documented_name(declared, name):
    with pytest.raises(Exception, match=name):
        declared(type("Clash", (DeviceType,), {name: Reading(type=reading_types.FLOAT)}))
