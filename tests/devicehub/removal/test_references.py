"""Rows of a project that prevent the deletion of a device, found before anything is deleted, as Django finds them."""

import pytest
from django.db import connection, models
from django.db.models.deletion import get_candidate_relations_to_delete
from django.test.utils import isolate_apps

from devicehub import removal
from devicehub.db.batches import Pace
from devicehub.kinds.registry import registry
from devicehub.models import RetainedTopic
from devicehub.removal import deletion
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.telemetry import fill, remains

KEEPS = {models.PROTECT: models.ProtectedError, models.RESTRICT: models.RestrictedError}


@pytest.fixture
def project(transactional_db, monkeypatch):
    """Return a function that creates a model of a project: `project("Visit", device=models.ForeignKey(...))`."""
    made, found = [], {}
    django_finds, we_find = get_candidate_relations_to_delete, deletion.relations

    def ours(options):
        return found.get(options, [])

    monkeypatch.setattr(deletion, "relations", lambda model: [*we_find(model), *ours(model._meta)])
    monkeypatch.setattr(
        "django.db.models.deletion.get_candidate_relations_to_delete",
        lambda options: [*django_finds(options), *ours(options)],
    )

    def make(name, **fields):
        meta = type("Meta", (), {"app_label": "fleet"})
        model = type(name, (models.Model,), {"Meta": meta, "__module__": __name__, **fields})
        for field in fields.values():
            target = field.remote_field.model
            if target.__module__ != __name__:  # Django finds relations among the others itself.
                found.setdefault(target._meta, []).append(field.remote_field)
        with connection.schema_editor() as editor:
            editor.create_model(model)
        made.append(model)
        return model

    with isolate_apps("fleet"):
        yield make
        for model in reversed(made):
            with connection.schema_editor() as editor:
                editor.delete_model(model)


def both(device):
    """Return the error of a request and that of Django, for the same rows. Neither deletes anything."""
    before, errors = remains(device), []
    for attempt in (lambda: removal.request(device), lambda: WeatherStationDevice.objects.get().delete()):
        with pytest.raises((models.ProtectedError, models.RestrictedError)) as raised:
            attempt()
        errors.append(type(raised.value))
    assert remains(device) == before
    assert WeatherStationDevice.objects.get().is_active
    assert not RetainedTopic.objects.exists()
    return errors


@pytest.mark.parametrize("rule", KEEPS, ids=["PROTECT", "RESTRICT"])
@pytest.mark.parametrize("target", [WeatherStationDevice, WeatherStationReading], ids=["device", "reading"])
def test_a_row_keeps_what_it_refers_to(project, station, rule, target):
    """A reading that is kept keeps its device too, since it would be deleted with the device."""
    fill(station)
    audit = project("Audit", subject=models.ForeignKey(target, rule))
    kept = audit.objects.create(subject=target.objects.first())

    assert both(station) == [KEEPS[rule]] * 2
    with pytest.raises(KEEPS[rule], match="a audit refers to it by subject"):
        removal.erase(registry.of(station), "STATION-001", Pace())

    kept.delete()
    assert removal.erase(registry.of(station), "STATION-001", Pace()).readings == 30


@pytest.mark.parametrize("rule", KEEPS, ids=["PROTECT", "RESTRICT"])
def test_a_row_keeps_what_goes_with_the_device(project, station, rule):
    """A chain of foreign keys: the visit would be deleted with the device, and the part refers to the visit."""
    visit = project("Visit", device=models.ForeignKey(WeatherStationDevice, models.CASCADE))
    part = project("Part", visit=models.ForeignKey(visit, rule))
    part.objects.create(visit=visit.objects.create(device=station))

    assert both(station) == [KEEPS[rule]] * 2


def test_a_restricted_row_that_goes_anyway_keeps_nothing(project, station):
    """As in Django: one key restricts the row, and the other one deletes it."""
    visit = project("Visit", device=models.ForeignKey(WeatherStationDevice, models.CASCADE))
    part = project(
        "Part",
        visit=models.ForeignKey(visit, models.RESTRICT),
        device=models.ForeignKey(WeatherStationDevice, models.CASCADE),
    )
    part.objects.create(visit=visit.objects.create(device=station), device=station)

    removal.request(station)

    assert removal.work_off() == 1
    assert not part.objects.exists()
    assert not visit.objects.exists()


@pytest.mark.parametrize("rule", [models.CASCADE, models.SET_NULL], ids=["CASCADE", "SET_NULL"])
def test_other_rules_keep_nothing(project, station, neighbour, rule):
    note = project("Note", device=models.ForeignKey(WeatherStationDevice, rule, null=True))
    for device in (station, neighbour):
        note.objects.create(device=device)

    removal.request(station)
    assert removal.work_off() == 1

    assert note.objects.count() == (1 if rule is models.CASCADE else 2)
    assert note.objects.filter(device=neighbour).exists()


def test_a_row_that_keeps_another_device_keeps_only_that_one(project, station, neighbour):
    audit = project("Audit", device=models.ForeignKey(WeatherStationDevice, models.PROTECT))
    audit.objects.create(device=neighbour)

    removal.request(station)

    assert removal.work_off() == 1


def test_of_several_devices_all_stay_where_one_is_kept(project, station, neighbour):
    audit = project("Audit", device=models.ForeignKey(WeatherStationDevice, models.PROTECT))
    audit.objects.create(device=neighbour)

    with pytest.raises(models.ProtectedError):
        removal.request_all([station, neighbour])

    assert WeatherStationDevice.objects.filter(is_active=True).count() == 2


def test_a_key_that_comes_after_the_request_keeps_the_rows_too(project, station):
    """The worker checks again before it begins."""
    fill(station)
    audit = project("Audit", device=models.ForeignKey(WeatherStationDevice, models.PROTECT))
    removal.request(station)
    kept = audit.objects.create(device=station)

    assert removal.work_off() == 0
    assert remains(station)["readings"] == 30

    kept.delete()
    assert removal.work_off() == 1
