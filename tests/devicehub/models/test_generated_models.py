"""The models made from a declaration: their Meta, their names, and a column for each reading and state."""

import math

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from devicehub import DeviceType, Reading, StateField, reading_types
from devicehub.models import BaseDevice, BaseMessage, BaseReading
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from rig.fields import clean_fields, column

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

    def test_lives_in_the_calling_module(self, model, verbose_name, table, ordering):
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
    """A plain `create_models()` in an app's models.py then migrates in that app."""

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
    """This includes a required one: one message may carry some readings and the next one others."""
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


def create_tables(*wanted):
    """Create the tables inside the test's transaction, which removes them again (SQLite's editor refuses one)."""
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
