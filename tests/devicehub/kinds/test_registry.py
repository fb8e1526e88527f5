"""The registry of kinds: one for each type that has models, and each slug once."""

from contextlib import suppress

import pytest

from authsvc.core import access
from authsvc.directory import claim_of
from authsvc.models import Account
from devicehub import DeviceType
from devicehub.kinds.declare import Hooks
from devicehub.kinds.registry import DuplicateKind, InvalidSlug, UnknownKey, registry
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading

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


def test_hooks_are_chosen_without_a_change_of_the_kind():
    class Ours(Hooks):
        pass

    kind = registry.get("weatherstation")
    registry.use_hooks(kind, Ours)
    try:
        assert (registry.hooks_of(kind), kind.hooks is Ours) == (Ours, False)
        registry.use_hooks(kind, kind.hooks)
    finally:
        registry._hooks.pop(kind)

    assert registry.hooks_of(kind) is kind.hooks


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
    """Otherwise the second app would silently remove the devices of the first from the registry."""
    pump = type("Pump", (DeviceType,), {})
    declared(pump, module="fleet.models")

    with pytest.raises(Exception, match="pump"):
        declared(pump, module="authsvc.models")


def test_two_types_of_one_name_in_one_module_are_the_same_error(declared):
    """Neither of them may silently replace the other."""
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


def test_a_type_called_account_is_refused(declared):
    """A device `backend` of this type would have the key, and so the grants, of the service account `backend`."""
    with pytest.raises(DuplicateKind, match=r"reserved for service accounts.*rename the class"):
        declared(type("Account", (DeviceType,), {}))

    assert registry.get("account") is None
    assert not declared.apps.all_models["authsvc"]


def test_a_kind_that_takes_the_key_of_accounts_by_its_slug_is_refused(declared):
    with pytest.raises(DuplicateKind, match="reserved"):
        declared(type("Robot", (DeviceType,), {"get_slug": classmethod(lambda cls: access.ACCOUNT)}))


@pytest.mark.parametrize("slug", ["account/x", "", "pump+", "pump#", "pump 1", "pump\n", "p" * 101])
def test_a_slug_is_one_topic_level(declared, slug):
    """Otherwise the keys of its devices could be equal to others."""
    with pytest.raises(InvalidSlug, match="not one topic level"):
        declared(type("Pump", (DeviceType,), {"get_slug": classmethod(lambda cls: slug)}))
    assert registry.get(slug) is None


def test_keys_of_accounts_begin_with_the_reserved_word():
    key = Account(username="backend").key

    assert key.split("/") == [access.ACCOUNT, "backend"]
    assert claim_of("backend", []).key == key


# Keys


def test_a_key_resolves_to_its_kind_and_device_id():
    assert registry.resolve("weatherstation/STATION-001") == (registry.get("weatherstation"), "STATION-001")


@pytest.mark.parametrize("key", ["toaster/T-1", "weatherstation", "weatherstation/", "", "/", "account/x"])
def test_a_text_that_is_not_the_key_of_a_device_does_not_resolve(key):
    with pytest.raises(UnknownKey):
        registry.resolve(key)
