"""The entity relationship diagrams of docs/reference/data-model.md are those of the models."""

import pytest
from django.apps import apps

from devicehub.lwm2m.models import Endpoint, Event, Resource, ResourceValue
from rig import data_model

pytestmark = pytest.mark.sqlite_only


def test_the_page_shows_the_models_as_they_are():
    page = data_model.PAGE.read_text()

    assert page == data_model.renewed(page), f"a model has changed: run {data_model.COMMAND}"


def test_every_model_of_our_apps_is_drawn():
    drawn = {model for labels in data_model.DIAGRAMS.values() for model in data_model.chosen(labels)}
    ours = {
        model for app in ("devicehub", "lwm2m", "authsvc") for model in apps.get_app_config(app).get_models()
    }

    assert ours <= drawn


def test_a_relation_says_how_many_and_if_the_database_checks_it():
    lines = data_model.drawing([Endpoint, Event, Resource, ResourceValue]).splitlines()

    assert '    Endpoint ||--o{ Resource : "device"' in lines
    assert '    Event ||..o{ ResourceValue : "event"' in lines
    assert "        bigint device_id FK" in lines
    assert "        varchar endpoint_name UK" in lines
    assert '        float number "null"' in lines
    assert not any("ResourceType" in line for line in lines)  # It is not among the drawn models.
