"""Device types whose kinds and models are removed after the test, and a broker with TLS."""

from types import SimpleNamespace

import pytest
from django.test.utils import isolate_apps

from devicehub import Command, DeviceType, Reading, StateField, commands, reading_types
from devicehub.kinds.registry import registry
from devicehub.models import register_command_sender
from rig.tls import certificate as certificate
from rig.tls import tls_broker as tls_broker


@pytest.fixture(autouse=True)
def close_sender():
    """Close the sender of commands after the test, so that none waits for a broker that was away in another one."""
    yield
    commands.close()


@pytest.fixture
def declared():
    """Have models made in an app registry of their own; remove kinds and models afterwards."""
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
    """Return a type with each kind of declaration, and its three models."""

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
def sent():
    """Yield the list of commands given to a sender that always succeeds; restore the real sender afterwards."""
    calls = []

    def sender(device, name, payload, broker_name="default"):
        calls.append((device, name, payload, broker_name))
        return "7f1d7c0e-8f0a-4b5e-9a55-3f1f4b7f0a11"

    register_command_sender(sender)
    yield calls
    register_command_sender(commands.send)
