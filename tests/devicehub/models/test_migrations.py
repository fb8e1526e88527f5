"""Migrations of generated models: complete, and stable for every type of column."""

import pytest
from django.core.management import call_command
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter

from fleet.models import WeatherStationDevice, WeatherStationMessage


@pytest.mark.parametrize("model", [WeatherStationDevice, WeatherStationMessage])
def test_every_base_column_is_in_the_first_migration(model):
    loader = MigrationLoader(None)
    (first,) = loader.graph.root_nodes("fleet")
    migrated = loader.project_state(first).models["fleet", model._meta.model_name]

    assert {f.name for f in model._meta.local_concrete_fields} <= set(migrated.fields)


# Migrations


def test_fleet_needs_no_new_migration(db):
    call_command("makemigrations", "fleet", check_changes=True, dry_run=True, verbosity=0)


def test_migrations_of_every_column_type_are_stable(probe, declared):
    """After the migration that makemigrations writes for a type, a second run writes nothing."""
    first_run = MigrationAutodetector(ProjectState(), ProjectState.from_apps(declared.apps))
    (migration,) = first_run._detect_changes()["fleet"]
    written = {}
    exec(MigrationWriter(migration).as_string(), written)

    state = written["Migration"]("0001_initial", "fleet").mutate_state(ProjectState())

    assert "soilprobedevice" in {name for _, name in state.models}
    assert MigrationAutodetector(state, ProjectState.from_apps(declared.apps))._detect_changes() == {}
