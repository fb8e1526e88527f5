"""Heat meters: an app with a kind of its own, installed for the tests that use the fixture."""

from importlib import import_module

import pytest
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.test.utils import modify_settings

from devicehub.kinds.registry import Kind, registry

collect_ignore = ["heat"]  # Its models exist only if the app is installed.
# Its models register the kind when they are imported, which a process does once.
registered: list[Kind] = []


@pytest.fixture(scope="module")
def heat(module_database):
    """Yield the module of its models; the app is installed and migrated like any other."""
    site = admin.site
    with modify_settings(INSTALLED_APPS={"append": "tests.devicehub.kinds.heat"}):
        # Unfold makes a new site, without any page, each time when the apps are readied.
        admin.site = admin.sites.site = site
        for kind in registered:
            registry.register(kind)
        with module_database.unblock():
            call_command("migrate", "heat", verbosity=0)
        yield import_module("tests.devicehub.kinds.heat.models")
        with module_database.unblock():
            call_command("migrate", "heat", "zero", verbosity=0)
            # The permissions go with them; no migration deletes either.
            ContentType.objects.filter(app_label="heat").delete()
    registered[:] = [kind for kind in registry if kind.slug == "heatmeter"]
    registry.unregister("heatmeter")
