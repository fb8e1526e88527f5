"""Heat meters: an app with a kind of its own, installed for the tests that use the fixture."""

from importlib import import_module

import pytest
from django.core.management import call_command
from django.test.utils import modify_settings

from devicehub.kinds.registry import Kind, registry

collect_ignore = ["heat"]  # Its models exist only if the app is installed.
# Its models register the kind when they are imported, which a process does once.
registered: list[Kind] = []


@pytest.fixture(scope="module")
def heat(django_db_setup, django_db_blocker):
    """Yield the module of its models; the app is installed and migrated like any other."""
    with (
        modify_settings(INSTALLED_APPS={"append": "tests.devicehub.kinds.heat"}),
        django_db_blocker.unblock(),
    ):
        for kind in registered:
            registry.register(kind)
        call_command("migrate", "heat", verbosity=0)
        yield import_module("tests.devicehub.kinds.heat.models")
        call_command("migrate", "heat", "zero", verbosity=0)
    registered[:] = [kind for kind in registry if kind.slug == "heatmeter"]
    registry.unregister("heatmeter")
