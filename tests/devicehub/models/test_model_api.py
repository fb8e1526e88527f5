"""The documented model API: what a declaration becomes, and what its models promise."""

import hashlib
import inspect
import json
import math
import re
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.core.checks import Error, run_checks
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, models, transaction
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter
from django.dispatch import Signal
from django.test.utils import isolate_apps
from django.utils import timezone
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import devicehub
from devicehub import Command, DeviceType, Reading, StateField, commands, reading_types, signals
from devicehub.kinds.registry import registry
from devicehub.models import (
    BaseDevice,
    BaseMessage,
    BaseReading,
    DeviceStatus,
    ProcessingStatus,
    register_command_sender,
)
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading

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

bad_device_ids = pytest.mark.parametrize("device_id", list(BAD_DEVICE_IDS.values()), ids=list(BAD_DEVICE_IDS))
bad_usernames = pytest.mark.parametrize("username", BAD_USERNAMES, ids=repr)
good_ids = st.from_regex(r"[A-Za-z0-9_:-]{1,128}", fullmatch=True)
thorough = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


@pytest.fixture
def declared():
    """Makes models in an app registry of their own; kinds and models are forgotten afterwards."""
    before = {kind.slug: kind for kind in registry}

    def make(device_type, module="fleet.models"):
        return device_type.create_models(module=module)

    with isolate_apps("fleet", "authsvc") as apps:
        make.apps = apps
        yield make
    for kind in list(registry):
        if before.get(kind.slug) is not kind:
            registry.unregister(kind.slug)
    for slug, kind in before.items():
        if registry.get(slug) is not kind:
            registry.register(kind)


@pytest.fixture
def probe(declared):
    """A type with one of everything, and its three models."""

    class SoilProbe(DeviceType):
        moisture = Reading(type=reading_types.FLOAT, unit="%", range=(0, 100), required=True)
        count = Reading(type=reading_types.INTEGER, verbose_name="Times it rained")
        wet = Reading(type=reading_types.BOOLEAN)
        label = Reading(type=reading_types.STRING)
        extra = Reading(type=reading_types.JSON)
        raw = Reading(type=reading_types.BINARY)

        mode = StateField(type="string", default="slow", choices=["slow", "fast"], verbose_name="Pace")
        depth = StateField(type="float", default=0.5)
        level = StateField(type="integer", default=3)
        buried = StateField(type="boolean", default=False)
        layout = StateField(type="json", default={})
        dug_at = StateField(type="datetime")

        reboot = Command()

    device, reading, message = declared(SoilProbe)
    return SimpleNamespace(type=SoilProbe, device=device, reading=reading, message=message)


@pytest.fixture
def station():
    return WeatherStationDevice(device_id="STATION-001", name="Roof")


@pytest.fixture
def stored(db):
    return WeatherStationDevice.objects.create(device_id="STATION-001", name="Roof")


@pytest.fixture
def message(stored):
    return WeatherStationMessage.objects.create(device=stored, topic="things/weatherstation/STATION-001/data")


@pytest.fixture
def sent():
    """What a sender that always succeeds was asked to send; the real one is back afterwards."""
    calls = []

    def sender(device, name, payload, broker_name="default"):
        calls.append((device, name, payload, broker_name))
        return "7f1d7c0e-8f0a-4b5e-9a55-3f1f4b7f0a11"

    register_command_sender(sender)
    yield calls
    register_command_sender(commands.send)


def column(model, name):
    return model._meta.get_field(name)


def clean_fields(instance, *names):
    """Run the validators of these fields only, without a query."""
    instance.clean_fields(exclude={f.name for f in instance._meta.fields} - set(names))


# The public names


def test_public_names_can_be_imported_from_the_package():
    assert {"DeviceType", "Reading", "Command", "StateField", "reading_types"} <= set(vars(devicehub))


@pytest.mark.parametrize("name", ["float", "integer", "boolean", "string", "json", "binary"])
def test_a_reading_type_is_a_constant_equal_to_its_name(name):
    assert getattr(reading_types, name.upper()) == name


@pytest.mark.parametrize("base", [BaseDevice, BaseReading, BaseMessage])
def test_bases_are_abstract(base):
    assert base._meta.abstract


def test_device_states():
    assert set(DeviceStatus.values) == {
        "online",
        "offline",
        "error",
        "maintenance",
        "low_battery",
        "provisioning",
    }


def test_processing_states():
    assert set(ProcessingStatus.values) == {"pending", "processing", "completed", "failed"}


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
    """`unique` brings its index; only the columns documented as indexed carry `db_index`."""
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


@pytest.mark.parametrize("model", [WeatherStationDevice, WeatherStationMessage])
def test_every_base_column_is_in_the_first_migration(model):
    loader = MigrationLoader(None)
    (first,) = loader.graph.root_nodes("fleet")
    migrated = loader.project_state(first).models["fleet", model._meta.model_name]

    assert {f.name for f in model._meta.local_concrete_fields} <= set(migrated.fields)


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
    """By one that begins with the device: a second one would be written with each row, and never read."""
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
    """NULL, not an empty text, stands for "none": the unique columns let any number of them in."""
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


# Meta of the generated models


@pytest.mark.parametrize(
    ("model", "verbose_name", "table", "ordering"),
    [
        (WeatherStationDevice, "Weather Station", "fleet_weatherstationdevice", ["-created_at"]),
        (WeatherStationReading, "Weather Station Reading", "fleet_weatherstationreading", ["-timestamp"]),
        (WeatherStationMessage, "Weather Station Message", "fleet_weatherstationmessage", ["-received_at"]),
    ],
)
class TestGeneratedMeta:
    def test_verbose_name(self, model, verbose_name, table, ordering):
        assert model._meta.verbose_name == verbose_name

    def test_table(self, model, verbose_name, table, ordering):
        assert model._meta.db_table == table

    def test_ordering_of_the_base_is_kept(self, model, verbose_name, table, ordering):
        assert list(model._meta.ordering) == ordering

    def test_is_concrete(self, model, verbose_name, table, ordering):
        assert not model._meta.abstract

    def test_lives_in_the_module_that_asked(self, model, verbose_name, table, ordering):
        assert model.__module__ == "fleet.models"
        assert model._meta.app_label == "fleet"


@pytest.mark.parametrize(
    ("base", "ordering"),
    [(BaseDevice, ["-created_at"]), (BaseReading, ["-timestamp"]), (BaseMessage, ["-received_at"])],
)
def test_base_ordering(base, ordering):
    assert list(base._meta.ordering) == ordering


def test_readings_are_indexed_by_device_and_time():
    assert ["device", "timestamp"] in [index.fields for index in WeatherStationReading._meta.indexes]


def test_messages_have_one_row_per_device_and_digest():
    unique = [set(c.fields) for c in WeatherStationMessage._meta.constraints]

    assert {"device", "digest"} in unique


def test_messages_without_a_digest_have_no_key(stored, message):
    WeatherStationMessage.objects.create(device=stored, topic=message.topic)

    assert stored.messages.count() == 2


@pytest.mark.parametrize(
    ("name", "words"), [("SoilProbe", "Soil Probe"), ("Pump", "Pump"), ("AirQualityNode", "Air Quality Node")]
)
def test_verbose_name_is_the_words_of_the_class(declared, name, words):
    device, reading, message = declared(type(name, (DeviceType,), {}))

    assert [m._meta.verbose_name for m in (device, reading, message)] == [
        words,
        f"{words} Reading",
        f"{words} Message",
    ]


def test_models_are_named_after_the_type(probe):
    assert [m.__name__ for m in (probe.device, probe.reading, probe.message)] == [
        "SoilProbeDevice",
        "SoilProbeReading",
        "SoilProbeMessage",
    ]


def test_models_extend_the_bases(probe):
    assert issubclass(probe.device, BaseDevice)
    assert issubclass(probe.reading, BaseReading)
    assert issubclass(probe.message, BaseMessage)


def test_models_take_the_module_of_the_caller(declared):
    """So that a bare `create_models()` in an app's models.py migrates in that app."""

    class Pump(DeviceType):
        flow = Reading(type=reading_types.FLOAT)

    caller = {"__name__": "authsvc.made_up", "Pump": Pump}
    exec("made = Pump.create_models()", caller)

    assert {m.__module__ for m in caller["made"]} == {"authsvc.made_up"}
    assert {m._meta.app_label for m in caller["made"]} == {"authsvc"}
    assert caller["made"][0]._meta.db_table == "authsvc_pumpdevice"


def test_module_can_be_given_instead(declared):
    models_made = declared(type("Pump", (DeviceType,), {}), module="authsvc.elsewhere")

    assert {m.__module__ for m in models_made} == {"authsvc.elsewhere"}


def test_a_type_without_any_declaration_gets_its_models(declared):
    _, reading, _ = declared(type("Beacon", (DeviceType,), {}))

    assert {f.name for f in reading._meta.local_fields} == {"id", "device", "timestamp", "received_at"}


# Readings and state fields as columns


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("moisture", "FloatField"),
        ("count", "BigIntegerField"),
        ("wet", "BooleanField"),
        ("label", "CharField"),
        ("extra", "JSONField"),
        ("raw", "BinaryField"),
    ],
)
def test_reading_becomes_a_nullable_column(probe, name, kind):
    """A required one too: one message may carry some readings and the next one others."""
    field = column(probe.reading, name)

    assert field.get_internal_type() == kind
    assert field.null


def test_string_reading_holds_255_characters(probe):
    assert column(probe.reading, "label").max_length == 255


def test_reading_keeps_its_unit_as_help_text(probe):
    assert column(probe.reading, "moisture").help_text == "%"


def test_reading_keeps_its_verbose_name(probe):
    assert column(probe.reading, "count").verbose_name == "Times it rained"


@pytest.mark.parametrize("value", [-40, -40.0, 0, 79.9, 80])
def test_a_value_in_range_validates(value):
    clean_fields(WeatherStationReading(temperature=value), "temperature")


@pytest.mark.parametrize("value", [-40.01, 80.01, 9999, math.inf, -math.inf])
def test_a_value_out_of_range_does_not_validate(value):
    with pytest.raises(ValidationError):
        clean_fields(WeatherStationReading(temperature=value), "temperature")


@pytest.mark.parametrize(
    ("bounds", "good", "bad"), [((0, None), 10**9, -1), ((None, 10), -(10**9), 11), ((0, 0), 0, 1)]
)
@pytest.mark.parametrize("kind", [reading_types.FLOAT, reading_types.INTEGER])
def test_a_range_may_be_open_and_holds_zero(declared, bounds, good, bad, kind):
    _, reading, _ = declared(type("Meter", (DeviceType,), {"value": Reading(type=kind, range=bounds)}))

    clean_fields(reading(value=good), "value")
    with pytest.raises(ValidationError):
        clean_fields(reading(value=bad), "value")


def test_a_reading_without_range_takes_any_number():
    clean_fields(WeatherStationReading(rainfall=1e12), "rainfall")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mode", "CharField"),
        ("depth", "FloatField"),
        ("level", "BigIntegerField"),
        ("buried", "BooleanField"),
        ("layout", "JSONField"),
        ("dug_at", "DateTimeField"),
    ],
)
def test_state_field_becomes_a_device_column(probe, name, kind):
    assert column(probe.device, name).get_internal_type() == kind


def test_state_fields_start_with_their_defaults(probe):
    device = probe.device(device_id="PROBE-1")

    assert (device.mode, device.depth, device.level, device.buried, device.layout, device.dug_at) == (
        "slow",
        0.5,
        3,
        False,
        {},
        None,
    )


@pytest.mark.parametrize("empty", [{}, []], ids=repr)
def test_a_json_default_is_not_shared(declared, empty):
    device, _, _ = declared(
        type("Panel", (DeviceType,), {"zones": StateField(type="json", default=type(empty)(empty))})
    )
    one, other = device(), device()
    one.zones.append(1) if isinstance(one.zones, list) else one.zones.update(a=1)

    assert other.zones == empty


@pytest.mark.parametrize("kind", ["string", "float", "integer", "boolean", "json", "datetime"])
def test_a_state_field_needs_no_default(declared, kind):
    device, _, _ = declared(type("Lamp", (DeviceType,), {"state": StateField(type=kind)}))

    clean_fields(device(device_id="LAMP-1"), "state")


def test_state_field_keeps_its_verbose_name(probe):
    assert column(probe.device, "mode").verbose_name == "Pace"


def test_choices_become_choices_of_the_column(probe):
    assert [value for value, _ in column(probe.device, "mode").choices] == ["slow", "fast"]


def test_a_value_outside_the_choices_does_not_validate(probe):
    with pytest.raises(ValidationError):
        clean_fields(probe.device(device_id="PROBE-1", mode="warp"), "mode")


def test_choices_may_carry_labels(declared):
    choices = [("slow", "Slow and steady"), ("fast", "Fast")]
    device, _, _ = declared(
        type("Fan", (DeviceType,), {"mode": StateField(type="string", default="slow", choices=choices)})
    )

    assert device(device_id="FAN-1", mode="slow").get_mode_display() == "Slow and steady"


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
    """Or it would quietly replace what every device has."""
    with pytest.raises(Exception, match=name):
        declared(type("Clash", (DeviceType,), {name: StateField(type="string")}))


@pytest.mark.parametrize("name", ["device", "timestamp", "received_at", "id", "pk", "save"])
def test_a_reading_cannot_take_a_documented_name(declared, name):
    with pytest.raises(Exception, match=name):
        declared(type("Clash", (DeviceType,), {name: Reading(type=reading_types.FLOAT)}))


def create_tables(*wanted):
    """Inside the test's transaction, which takes them away again (SQLite's editor itself wants none)."""
    editor = connection.schema_editor()
    editor.deferred_sql = []
    with connection.cursor() as cursor:
        for model in wanted:
            cursor.execute(*editor.table_sql(model))


def test_every_type_of_reading_holds_its_value(db, probe):
    create_tables(probe.device, probe.reading)
    values = {
        "moisture": 12.5,
        "count": -(2**63),
        "wet": True,
        "label": "x" * 255,
        "extra": {"a": [1, None, "ä"]},
        "raw": b"\x00\x01\xff",
    }
    device = probe.device.objects.create(device_id="PROBE-1")
    probe.reading.objects.create(device=device, timestamp=timezone.now(), **values)
    (row,) = device.readings.values(*values)

    assert {**row, "raw": bytes(row["raw"])} == values


def test_every_type_of_state_holds_its_value(db, probe):
    create_tables(probe.device)
    values = {
        "mode": "fast",
        "depth": 1.25,
        "level": 2**63 - 1,
        "buried": True,
        "layout": {"rows": 2},
        "dug_at": timezone.now(),
    }
    probe.device.objects.create(device_id="PROBE-1", **values)

    assert probe.device.objects.values(*values).get() == values


# Declarations with mistakes


@pytest.mark.parametrize("kind", ["flaot", "FLOAT", "datetime", "", None, 3])
def test_an_unknown_reading_type_is_refused(kind):
    with pytest.raises((TypeError, ValueError)):
        Reading(type=kind)


@pytest.mark.parametrize("kind", ["binary", "text", "STRING", "", None])
def test_an_unknown_state_type_is_refused(kind):
    with pytest.raises((TypeError, ValueError)):
        StateField(type=kind)


@pytest.mark.parametrize("declaration", [Reading, StateField, Command])
def test_a_misspelt_argument_is_refused(declaration):
    with pytest.raises(TypeError, match="verbos_name"):
        declaration(verbos_name="Temperature")


@pytest.mark.parametrize("option", ["heartbeat", "topic", "ordering", "abstract", "clientid"])
def test_an_unknown_meta_option_is_refused(option):
    with pytest.raises((TypeError, ValueError), match=option):
        type("Pump", (DeviceType,), {"Meta": type("Meta", (), {option: 1})}).create_models(
            module="fleet.models"
        )


def test_client_id_is_bound_or_any():
    with pytest.raises((TypeError, ValueError), match="client_id"):
        type("Pump", (DeviceType,), {"Meta": type("Meta", (), {"client_id": "anything"})})


def test_meta_options_have_defaults():
    assert {
        "protocol": "mqtt",
        "broker": "default",
        "heartbeat_interval": 300,
        "topic_template": "{prefix}/{type_name}/{device_id}/{message_type}",
    }.items() <= type("Pump", (DeviceType,), {}).get_meta().items()


def test_meta_options_can_be_set():
    meta = type("Meta", (), {"protocol": "mqtt", "broker": "default", "heartbeat_interval": 60})

    assert type("Pump", (DeviceType,), {"Meta": meta}).get_meta()["heartbeat_interval"] == 60


def test_client_ids_are_bound_unless_the_type_says_otherwise():
    open_type = type("Pump", (DeviceType,), {"Meta": type("Meta", (), {"client_id": "any"})})

    assert type("Tap", (DeviceType,), {}).get_meta()["client_id"] != "any"
    assert open_type.get_meta()["client_id"] == "any"


@pytest.mark.parametrize("qos", [-1, 3, "1", None])
def test_qos_is_0_1_or_2(qos):
    with pytest.raises((TypeError, ValueError)):
        Command(qos=qos)


def test_topics_of_two_types_must_be_tellable_apart(declared):
    """A system check names both types."""
    meta = type("Meta", (), {"topic_template": "{prefix}/{device_id}/{message_type}"})
    declared(type("Pump", (DeviceType,), {"Meta": meta}))
    declared(type("Tap", (DeviceType,), {"Meta": meta}))

    errors = [e for e in run_checks() if isinstance(e, Error) and e.id.startswith("devicehub.")]

    assert any("pump" in str(e).lower() and "tap" in str(e).lower() for e in errors)


@pytest.mark.parametrize(
    "template",
    ["{prefix}/{type_name}/{device_id}", "{prefix}/{type_name}/{message_type}", "{prefix}/{devid}"],
)
def test_a_template_that_cannot_name_a_topic_is_an_error(declared, template):
    declared(type("Pump", (DeviceType,), {"Meta": type("Meta", (), {"topic_template": template})}))

    assert [e for e in run_checks() if isinstance(e, Error) and "pump" in str(e).lower()]


# Inheritance


class Sensor(DeviceType):
    temperature = Reading(type=reading_types.FLOAT, range=(-40, 80))
    humidity = Reading(type=reading_types.FLOAT)
    mode = StateField(type="string", default="auto")
    reboot = Command()

    class Meta:
        heartbeat_interval = 900


def names(reading_model):
    return {f.name for f in reading_model._meta.local_fields} - {"id", "device", "timestamp", "received_at"}


def test_a_subtype_inherits_all_and_adds(declared):
    class GreenhouseSensor(Sensor):
        light = Reading(type=reading_types.INTEGER)

    device, reading, _ = declared(GreenhouseSensor)

    assert names(reading) == {"temperature", "humidity", "light"}
    assert device().mode == "auto"


def test_what_a_subtype_adds_its_base_does_not_get(declared):
    class GreenhouseSensor(Sensor):
        light = Reading(type=reading_types.INTEGER)
        shade = StateField(type="boolean", default=False)

    device, reading, _ = declared(Sensor)

    assert names(reading) == {"temperature", "humidity"}
    assert "shade" not in {f.name for f in device._meta.fields}


def test_a_subtype_overrides_a_reading(declared):
    class Oven(Sensor):
        temperature = Reading(type=reading_types.FLOAT, range=(0, 1200))

    _, base_reading, _ = declared(Sensor)
    _, reading, _ = declared(Oven)

    clean_fields(reading(temperature=1000), "temperature")
    with pytest.raises(ValidationError):
        clean_fields(base_reading(temperature=1000), "temperature")


def test_a_subtype_removes_a_reading(declared):
    class DrySensor(Sensor):
        humidity = None

    _, reading, _ = declared(DrySensor)

    assert names(reading) == {"temperature"}


def test_what_was_removed_stays_removed_further_down(declared):
    class DrySensor(Sensor):
        humidity = None

    class DrierSensor(DrySensor):
        pass

    _, reading, _ = declared(DrierSensor)

    assert names(reading) == {"temperature"}


def test_a_subtype_removes_a_command(declared, sent):
    class Stubborn(Sensor):
        reboot = None

    device, _, _ = declared(Stubborn)

    with pytest.raises(ValueError, match="reboot"):
        device(device_id="S-1").send_command("reboot")


def test_a_subtype_turns_a_reading_into_a_state(declared):
    class SlowSensor(Sensor):
        humidity = StateField(type="float", default=50.0)

    device, reading, _ = declared(SlowSensor)

    assert names(reading) == {"temperature"}
    assert device().humidity == 50.0


def test_a_subtype_has_the_commands_of_its_base(declared, sent):
    class GreenhouseSensor(Sensor):
        water = Command(payload={"seconds": int})

    device, _, _ = declared(GreenhouseSensor)
    device(device_id="S-1").send_command("reboot")
    device(device_id="S-1").send_command("water", {"seconds": 5})

    assert [call[1] for call in sent] == ["reboot", "water"]


def test_two_bases_are_joined(declared):
    class Lit(DeviceType):
        light = Reading(type=reading_types.INTEGER)

    class LitSensor(Sensor, Lit):
        pass

    _, reading, _ = declared(LitSensor)

    assert names(reading) == {"temperature", "humidity", "light"}


def test_the_first_base_wins(declared):
    class Other(DeviceType):
        temperature = Reading(type=reading_types.INTEGER)

    class Both(Sensor, Other):
        pass

    _, reading, _ = declared(Both)

    assert column(reading, "temperature").get_internal_type() == "FloatField"


def test_in_a_diamond_the_override_wins(declared):
    """As with Python's attributes: a base that only inherits does not undo what another one overrides."""

    class Plain(Sensor):
        pass

    class Counting(Sensor):
        temperature = Reading(type=reading_types.INTEGER)

    class Both(Plain, Counting):
        pass

    _, reading, _ = declared(Both)

    assert column(reading, "temperature").get_internal_type() == "BigIntegerField"


def test_meta_is_inherited():
    class Quiet(Sensor):
        pass

    assert Quiet.get_meta()["heartbeat_interval"] == 900


def test_meta_can_extend_the_base_meta():
    class Quiet(Sensor):
        class Meta(Sensor.Meta):
            client_id = "any"

    assert (Quiet.get_meta()["heartbeat_interval"], Quiet.get_meta()["client_id"]) == (900, "any")


def test_meta_of_a_subtype_leaves_the_base_alone():
    class Quiet(Sensor):
        class Meta:
            heartbeat_interval = 30

    assert (Quiet.get_meta()["heartbeat_interval"], Sensor.get_meta()["heartbeat_interval"]) == (30, 900)


def test_base_and_subtype_both_have_models(declared):
    class GreenhouseSensor(Sensor):
        pass

    base, _, _ = declared(Sensor)
    device, _, _ = declared(GreenhouseSensor)

    assert not issubclass(device, base)
    assert base._meta.db_table != device._meta.db_table


# The registry


def test_the_registry_holds_a_kind_for_the_type():
    kind = registry.get("weatherstation")

    assert (kind.slug, kind.device_model, kind.message_model, kind.reading_model) == (
        "weatherstation",
        WeatherStationDevice,
        WeatherStationMessage,
        WeatherStationReading,
    )


def test_the_registry_lists_its_kinds():
    assert "weatherstation" in {kind.slug for kind in registry}


def test_a_declaration_alone_is_no_kind(declared):
    class Unused(DeviceType):
        pass

    assert registry.get("unused") is None


def test_an_unknown_slug_has_no_kind():
    assert registry.get("toaster") is None


def test_a_kind_names_its_devices_by_a_text_key():
    assert registry.get("weatherstation").key("STATION-001") == "weatherstation/STATION-001"


@pytest.mark.parametrize("name", ["Pump", "PUMP", "pUmP"])
def test_two_types_of_one_slug_are_an_error_that_names_both(declared, name):
    declared(type("Pump", (DeviceType,), {"__module__": "north.devices"}), module="fleet.models")

    with pytest.raises(Exception, match="pump") as caught:
        declared(type(name, (DeviceType,), {"__module__": "south.devices"}), module="authsvc.models")
    assert "north.devices.Pump" in str(caught.value)
    assert f"south.devices.{name}" in str(caught.value)


def test_two_types_of_one_slug_in_one_app_are_the_same_error(declared):
    declared(type("Pump", (DeviceType,), {"__module__": "north.devices"}))

    with pytest.raises(Exception, match="pump") as caught:
        declared(type("PuMp", (DeviceType,), {"__module__": "south.devices"}))
    assert "north.devices.Pump" in str(caught.value)
    assert "south.devices.PuMp" in str(caught.value)


def test_one_type_with_models_in_two_apps_is_the_same_error(declared):
    """Or the second app would quietly take the devices of the first out of the registry."""
    pump = type("Pump", (DeviceType,), {})
    declared(pump, module="fleet.models")

    with pytest.raises(Exception, match="pump"):
        declared(pump, module="authsvc.models")


def test_two_types_of_one_name_in_one_module_are_the_same_error(declared):
    """Neither of them may quietly replace the other."""
    declared(type("Pump", (DeviceType,), {"__module__": "north.devices"}), module="fleet.models")

    with pytest.raises(Exception, match="pump"):
        declared(type("Pump", (DeviceType,), {"__module__": "north.devices"}), module="authsvc.models")


def test_the_first_of_two_types_stays(declared):
    device, _, _ = declared(type("Pump", (DeviceType,), {"__module__": "north.devices"}))
    with suppress(Exception):
        declared(type("Pump", (DeviceType,), {"__module__": "south.devices"}), module="authsvc.models")

    assert registry.get("pump").device_model is device


def test_a_refused_type_leaves_no_models(declared):
    declared(type("Pump", (DeviceType,), {"__module__": "north.devices"}))
    with suppress(Exception):
        declared(type("Pump", (DeviceType,), {"__module__": "south.devices"}), module="authsvc.models")

    assert not declared.apps.all_models["authsvc"]


@pytest.mark.parametrize("name", ["Lwm2m", "LWM2M", "LwM2M"])
def test_lwm2m_is_reserved(declared, name):
    with pytest.raises(Exception, match=r"(?i)lwm2m"):
        declared(type(name, (DeviceType,), {}))


# Names


@pytest.mark.parametrize(("name", "text"), [("Roof", "Roof (online)"), ("", "STATION-001 (online)")])
def test_a_device_reads_as_its_name_or_id(name, text):
    assert str(WeatherStationDevice(device_id="STATION-001", name=name, status="online")) == text


def test_a_new_device_reads_as_offline(station):
    assert str(station) == "Roof (offline)"


def test_a_status_of_the_enumeration_reads_as_its_value(station):
    station.status = DeviceStatus.LOW_BATTERY

    assert str(station) == "Roof (low_battery)"


def test_a_reading_reads_as_its_time():
    now = timezone.now()

    assert str(WeatherStationReading(timestamp=now)) == f"Reading at {now}"


def test_a_message_reads_as_its_topic_and_state():
    message = WeatherStationMessage(topic="things/weatherstation/STATION-001/data")

    assert str(message) == "Message on things/weatherstation/STATION-001/data (pending)"


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
    """No `-`: mosquitto-go-auth joins its cache key with it."""
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


@bad_usernames
class TestUsernamesRefused:
    def test_by_save(self, stored, username):
        stored.mqtt_username = username
        with pytest.raises(REFUSED), transaction.atomic():
            stored.save()

    def test_by_create(self, db, username):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.create(device_id="STATION-002", mqtt_username=username)

    def test_by_bulk_create(self, db, username):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.bulk_create(
                [WeatherStationDevice(device_id="STATION-002", mqtt_username=username)]
            )

    def test_by_update(self, stored, username):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.update(mqtt_username=username)

    def test_by_bulk_update(self, stored, username):
        stored.mqtt_username = username
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.bulk_update([stored], ["mqtt_username"])


@pytest.mark.parametrize("username", ["a", "x" * 128, "meter.7@plant:a=b_c-d", "Guest", "none", "NULL"])
def test_a_legal_username_is_kept(stored, username):
    stored.mqtt_username = username
    stored.save()

    assert WeatherStationDevice.objects.get(mqtt_username=username) == stored


# Device ids


@bad_device_ids
class TestDeviceIdsRefused:
    def test_by_full_clean(self, device_id):
        with pytest.raises(ValidationError):
            clean_fields(WeatherStationDevice(device_id=device_id), "device_id")

    def test_by_save(self, db, device_id):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice(device_id=device_id).save()
        assert not WeatherStationDevice.objects.exists()

    def test_by_saving_a_known_device(self, stored, device_id):
        stored.device_id = device_id
        with pytest.raises(REFUSED), transaction.atomic():
            stored.save(update_fields=["device_id"])

    def test_by_create(self, db, device_id):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.create(device_id=device_id)

    def test_by_bulk_create(self, db, device_id):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.bulk_create(
                [WeatherStationDevice(device_id="STATION-002"), WeatherStationDevice(device_id=device_id)]
            )
        assert not WeatherStationDevice.objects.exists()

    def test_by_bulk_create_that_ignores_conflicts(self, db, device_id):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.bulk_create(
                [WeatherStationDevice(device_id=device_id)], ignore_conflicts=True
            )

    def test_by_update(self, stored, device_id):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.update(device_id=device_id)
        stored.refresh_from_db()
        assert stored.device_id == "STATION-001"

    def test_by_bulk_update(self, stored, device_id):
        stored.device_id = device_id
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.bulk_update([stored], ["device_id"])

    def test_by_update_or_create(self, stored, device_id):
        with pytest.raises(REFUSED), transaction.atomic():
            WeatherStationDevice.objects.update_or_create(pk=stored.pk, defaults={"device_id": device_id})

    def test_by_generate_credentials(self, device_id):
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


def test_looking_for_an_illegal_id_finds_nobody(stored):
    """Only writing is checked: a query that asks for nonsense has an empty answer, not an error."""
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


# Presence


def test_mark_online_is_stored(stored):
    before = timezone.now()
    stored.mark_online()
    stored.refresh_from_db()

    assert stored.status == "online"
    assert before <= stored.last_seen <= timezone.now()


def test_mark_offline_is_stored_and_keeps_when_it_was_seen(stored):
    stored.mark_online()
    seen = stored.last_seen
    stored.mark_offline()
    stored.refresh_from_db()

    assert (stored.status, stored.last_seen) == ("offline", seen)


@pytest.mark.parametrize("mark", ["mark_online", "mark_offline"])
def test_marking_leaves_other_columns_alone(stored, mark):
    """Saves name their fields: an operator may have renamed the device meanwhile."""
    WeatherStationDevice.objects.update(name="Cellar", is_active=False)
    getattr(stored, mark)()
    stored.refresh_from_db()

    assert (stored.name, stored.is_active) == ("Cellar", False)


@pytest.mark.parametrize("mark", ["mark_online", "mark_offline"])
def test_marking_moves_updated_at(stored, mark):
    before = stored.updated_at
    getattr(stored, mark)()
    stored.refresh_from_db()

    assert stored.updated_at > before


def test_a_device_never_seen_is_overdue(station):
    assert station.is_heartbeat_overdue() is True


@pytest.mark.parametrize(
    ("seconds", "arguments", "overdue"),
    [
        (0, {}, False),
        (740, {}, False),
        (760, {}, True),
        (20, {"heartbeat_interval": 10}, False),
        (30, {"heartbeat_interval": 10}, True),
        (590, {"multiplier": 2}, False),
        (610, {"multiplier": 2}, True),
        (-60, {}, False),
    ],
)
def test_a_device_is_overdue_after_some_heartbeats(station, seconds, arguments, overdue):
    """300 seconds times 2.5 unless told otherwise."""
    station.last_seen = timezone.now() - timedelta(seconds=seconds)

    assert station.is_heartbeat_overdue(**arguments) is overdue


def test_heartbeat_arguments_can_be_positional(station):
    station.last_seen = timezone.now() - timedelta(seconds=100)

    assert station.is_heartbeat_overdue(10, 2) is True


# Messages


def test_mark_completed_is_stored(message):
    before = timezone.now()
    message.mark_completed()
    message.refresh_from_db()

    assert message.processing_status == "completed"
    assert before <= message.processed_at <= timezone.now()


def test_mark_failed_is_stored_with_its_reason(message):
    message.mark_failed("no JSON")
    message.refresh_from_db()

    assert (message.processing_status, message.processing_error) == ("failed", "no JSON")
    assert message.processed_at


def test_mark_failed_needs_no_reason(message):
    message.mark_failed()
    message.refresh_from_db()

    assert (message.processing_status, message.processing_error) == ("failed", "")


def test_mark_failed_takes_the_reason_by_name(message):
    message.mark_failed(error="no JSON")

    assert message.processing_error == "no JSON"


@pytest.mark.parametrize("mark", ["mark_completed", "mark_failed"])
def test_marking_a_message_leaves_its_payload_alone(message, mark):
    WeatherStationMessage.objects.update(payload_json={"temperature": 20})
    getattr(message, mark)()
    message.refresh_from_db()

    assert message.payload_json == {"temperature": 20}


# Commands


@pytest.fixture
def robot(declared, sent):
    """A device with a command for every type of parameter; what it is sent lands in `sent`."""

    class Robot(DeviceType):
        stop = Command(description="Stop now")
        count = Command(payload={"value": int})
        turn = Command(payload={"value": float}, qos=2)
        say = Command(payload={"value": str})
        light = Command(payload={"value": bool})
        plan = Command(payload={"value": dict})
        visit = Command(payload={"value": list})
        move = Command(payload={"x": int, "y": int})

    device, _, _ = declared(Robot)
    return device(device_id="ROBOT-1")


GOOD_VALUES = [
    ("count", 60),
    ("count", -1),
    ("count", 0),
    ("turn", 1.5),
    ("turn", 2),
    ("say", "hello"),
    ("say", ""),
    ("light", True),
    ("light", False),
    ("plan", {"a": 1}),
    ("plan", {}),
    ("visit", [1, 2]),
    ("visit", []),
]
BAD_VALUES = [
    ("count", True),
    ("count", False),
    ("count", "60"),
    ("count", 60.0),
    ("count", None),
    ("count", [60]),
    ("turn", True),
    ("turn", "1.5"),
    ("turn", None),
    ("say", 5),
    ("say", b"hello"),
    ("say", None),
    ("say", ["hello"]),
    ("light", 1),
    ("light", 0),
    ("light", "true"),
    ("light", None),
    ("plan", []),
    ("plan", "{}"),
    ("visit", {}),
    ("visit", "abc"),
]


@pytest.mark.parametrize(("name", "value"), GOOD_VALUES, ids=repr)
def test_a_fitting_parameter_is_sent(robot, sent, name, value):
    robot.send_command(name, {"value": value})

    assert sent == [(robot, name, {"value": value}, "default")]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=repr)
def test_a_parameter_of_a_wrong_type_is_a_type_error(robot, sent, name, value):
    with pytest.raises(TypeError, match="value"):
        robot.send_command(name, {"value": value})
    assert not sent


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("count", None),
        ("count", {}),
        ("move", {"x": 1}),
        ("count", {"value": 1, "unit": "s"}),
        ("count", {"Value": 1}),
        ("move", {"x": 1, "y": 2, "z": 3}),
        ("stop", {"now": True}),
    ],
)
def test_a_missing_or_unknown_parameter_is_a_value_error(robot, sent, name, payload):
    with pytest.raises(ValueError):
        robot.send_command(name, payload)
    assert not sent


@pytest.mark.parametrize(("name", "parameter"), [("y", {"x": 1}), ("z", {"x": 1, "y": 2, "z": 3})])
def test_the_error_names_the_parameter(robot, name, parameter):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        robot.send_command("move", parameter)


@pytest.mark.parametrize("payload", [[], "x", 5, [("value", 1)]])
def test_a_payload_that_is_no_mapping_is_refused(robot, sent, payload):
    with pytest.raises((TypeError, ValueError)):
        robot.send_command("count", payload)
    assert not sent


@pytest.mark.parametrize("name", ["explode", "", "Stop", "STOP", "__init__", "on_data"])
def test_an_unknown_command_is_a_value_error(robot, sent, name):
    with pytest.raises(ValueError):
        robot.send_command(name)
    assert not sent


def test_a_reading_is_no_command(station, sent):
    with pytest.raises(ValueError):
        station.send_command("temperature")
    assert not sent


@pytest.mark.parametrize("payload", [None, {}])
def test_a_command_without_parameters_needs_no_payload(robot, sent, payload):
    robot.send_command("stop", payload)

    assert [call[1] for call in sent] == ["stop"]


def test_a_broker_can_be_named(robot, sent):
    robot.send_command("stop", broker_name="default")

    assert sent[0][3] == "default"


def test_a_device_without_device_type_has_no_commands(declared, sent):
    class HandMadeDevice(BaseDevice):
        class Meta(BaseDevice.Meta):
            app_label = "fleet"

    with pytest.raises(ValueError):
        HandMadeDevice(device_id="HAND-1").send_command("reboot")
    assert not sent


@pytest.mark.parametrize("kind", [bytes, None, "int", object, set])
def test_a_parameter_type_that_json_has_not_is_refused(kind):
    with pytest.raises((TypeError, ValueError)):
        Command(payload={"value": kind})


@pytest.mark.django_db(transaction=True)
def test_a_command_goes_to_the_devices_own_topic(stored, published):
    stored.send_command("set_interval", {"interval": 60})

    assert [m.topic for m in published] == ["things/weatherstation/STATION-001/cmd"]


@pytest.mark.django_db(transaction=True)
def test_a_command_on_the_wire_is_json_with_an_id(stored, published):
    stored.send_command("set_interval", {"interval": 60})
    document = json.loads(published[0].payload)

    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document.pop("id"))
    assert document == {"command": "set_interval", "payload": {"interval": 60}}


@pytest.mark.django_db(transaction=True)
def test_a_command_follows_the_topic_prefix(settings, stored, published):
    settings.DEVICEHUB_TOPIC_PREFIX = "plant"
    stored.send_command("reboot")

    assert published[0].topic == "plant/weatherstation/STATION-001/cmd"


@pytest.mark.django_db(transaction=True)
def test_a_sent_command_is_signalled_without_credentials(stored, published):
    received = []
    stored.generate_credentials()

    def listener(sender, **arguments):
        received.append((sender, arguments))

    signals.device_command_sent.connect(listener)
    try:
        stored.send_command("set_interval", {"interval": 60})
    finally:
        signals.device_command_sent.disconnect(listener)
    ((sender, arguments),) = received
    arguments.pop("signal")

    assert sender is WeatherStation
    assert arguments == {"device": stored, "command": "set_interval", "payload": {"interval": 60}}


def test_a_refused_command_is_not_signalled(stored, published):
    received = []

    def listener(**arguments):
        received.append(arguments)

    signals.device_command_sent.connect(listener)
    try:
        with pytest.raises(ValueError):
            stored.send_command("explode")
    finally:
        signals.device_command_sent.disconnect(listener)

    assert not received
    assert not published


# Signals and hooks


@pytest.mark.parametrize(
    "name",
    [
        "device_data_received",
        "device_status_changed",
        "device_connected",
        "device_disconnected",
        "device_command_sent",
        "device_provisioned",
    ],
)
def test_signal_exists(name):
    assert isinstance(getattr(signals, name), Signal)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("on_data", ["device", "readings"]),
        ("on_status_change", ["device", "old_status", "new_status"]),
        ("on_connect", ["device"]),
        ("on_disconnect", ["device"]),
        ("on_command_response", ["device", "command", "response"]),
    ],
)
def test_hook_exists_and_does_nothing(name, arguments):
    hook = getattr(WeatherStation(), name)

    assert list(inspect.signature(hook).parameters) == arguments
    assert hook(*arguments) is None


def test_a_hook_is_no_declaration(declared):
    class Chatty(DeviceType):
        value = Reading(type=reading_types.FLOAT)

        def on_data(self, device, readings):
            return readings

    _, reading, _ = declared(Chatty)

    assert names(reading) == {"value"}


# Migrations


def test_fleet_needs_no_new_migration(db):
    call_command("makemigrations", "fleet", check_changes=True, dry_run=True, verbosity=0)


def test_migrations_of_every_column_type_are_stable(probe, declared):
    """What makemigrations writes for a type leaves nothing to do for its second run."""
    first_run = MigrationAutodetector(ProjectState(), ProjectState.from_apps(declared.apps))
    (migration,) = first_run._detect_changes()["fleet"]
    written = {}
    exec(MigrationWriter(migration).as_string(), written)

    state = written["Migration"]("0001_initial", "fleet").mutate_state(ProjectState())

    assert "soilprobedevice" in {name for _, name in state.models}
    assert MigrationAutodetector(state, ProjectState.from_apps(declared.apps))._detect_changes() == {}


# The project's own fleet


@pytest.mark.parametrize(
    ("name", "unit", "bounds"),
    [("temperature", "Cel", (-40, 80)), ("humidity", "%RH", (0, 100)), ("rainfall", "mm", None)],
)
def test_the_weather_station_measures(name, unit, bounds):
    field = column(WeatherStationReading, name)
    limits = tuple(v.limit_value for v in field.validators) or None

    assert field.get_internal_type() == "FloatField"
    assert field.help_text == unit
    assert limits == bounds


@pytest.mark.parametrize(
    ("name", "payload"), [("reboot", None), ("reboot", {}), ("set_interval", {"interval": 60})]
)
def test_the_weather_station_understands(station, sent, name, payload):
    station.send_command(name, payload)

    assert [call[1] for call in sent] == [name]


@pytest.mark.parametrize("interval", ["60", True, 60.0])
def test_the_interval_is_an_integer(station, sent, interval):
    with pytest.raises(TypeError):
        station.send_command("set_interval", {"interval": interval})


def test_another_type_has_state_fields_with_choices():
    documented = {f.name for f in BaseDevice._meta.get_fields()}
    states = [
        field
        for kind in registry
        if kind.device_model._meta.app_label == "fleet"
        for field in kind.device_model._meta.local_concrete_fields
        if field.choices and field.name not in documented
    ]

    assert states
