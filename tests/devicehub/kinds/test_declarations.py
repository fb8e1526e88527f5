"""The rules for declarations: types, options of Meta, client ids, QoS, topics."""

import pytest
from django.core.checks import Error, run_checks

from devicehub import Command, DeviceType, Reading, StateField

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


def test_topics_of_two_types_must_not_overlap(declared):
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


# Readings that are resources of LwM2M


@pytest.mark.parametrize(
    "path",
    ["/3303/0/5700", "3303/5700", "3303/0/5700/1/2", "3303/0/65535", "03303/0/5700", "3303/0/-1", "", 3303],
)
def test_a_path_that_no_resource_has_is_refused(path):
    with pytest.raises(ValueError, match="3303/0/5700"):
        Reading(lwm2m=path)


def test_a_json_reading_is_not_a_resource():
    with pytest.raises(ValueError, match="json"):
        Reading(type="json", lwm2m="3303/0/5700")


def test_two_readings_cannot_be_one_resource():
    one, other = Reading(lwm2m="3303/0/5700"), Reading(lwm2m="3303/0/5700")
    with pytest.raises(ValueError, match="one and other"):
        type("Pump", (DeviceType,), {"one": one, "other": other})


def test_a_resource_has_one_type_in_all_instances():
    one, other = Reading(lwm2m="3303/0/5700"), Reading(type="integer", lwm2m="3303/1/5700")
    with pytest.raises(ValueError, match="two types"):
        type("Pump", (DeviceType,), {"one": one, "other": other})


def test_a_subclass_removes_the_resource_of_its_base():
    base = type("Pump", (DeviceType,), {"heat": Reading(lwm2m="3303/0/5700")})

    assert type("Fan", (base,), {"heat": None, "air": Reading(lwm2m="3303/0/5700")})._readings.keys() == {
        "air"
    }
