"""Weather stations with stored data, and a model of another app that refers to them."""

from contextlib import ExitStack

import pytest
from django.db import connection, models
from django.db.models.deletion import get_candidate_relations_to_delete
from django.test.utils import isolate_apps

from devicehub.removal import deletion
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.stations import keeps as keeps
from rig.stations import kind as kind
from rig.stations import neighbour as neighbour
from rig.stations import no_rest as no_rest
from rig.stations import station as station


@pytest.fixture
def repair(transactional_db):
    """Create a model of a project with a PROTECT key to devices and a CASCADE key to readings; return it."""
    with isolate_apps("fleet"), ExitStack() as stack:

        class Repair(models.Model):
            device = models.ForeignKey(WeatherStationDevice, models.PROTECT, null=True)
            reading = models.ForeignKey(WeatherStationReading, models.CASCADE, null=True)

            class Meta:
                app_label = "fleet"

        with connection.schema_editor() as editor:
            editor.create_model(Repair)
        django_finds, we_find = get_candidate_relations_to_delete, deletion.relations
        found = {
            field.remote_field.model._meta: field.remote_field
            for field in Repair._meta.fields
            if field.is_relation
        }

        def ours(options):
            return [found[options]] if options in found else []

        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(deletion, "relations", lambda model: [*we_find(model), *ours(model._meta)])
        name = "django.db.models.deletion.get_candidate_relations_to_delete"
        patch.setattr(name, lambda options: [*django_finds(options), *ours(options)])
        yield Repair
        with connection.schema_editor() as editor:
            editor.delete_model(Repair)
