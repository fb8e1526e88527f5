"""Kinds that a test declares, with tables of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.test.utils import isolate_apps

from devicehub import DeviceType
from devicehub.kinds.registry import Kind, registry


@contextmanager
def tables_of(device_type: type[DeviceType], module_database: Any) -> Iterator[Kind]:
    """Create the models of *device_type* and their tables; remove both at the end of the context."""
    with isolate_apps("fleet", "authsvc"):
        models = device_type.create_models(module="fleet.models")
    slug = device_type.get_slug()
    kind = registry.get(slug)
    assert kind is not None
    with module_database.unblock(), connection.schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    yield kind
    with module_database.unblock(), connection.schema_editor() as editor:
        for model in reversed(models):
            editor.delete_model(model)
    registry.unregister(slug)
