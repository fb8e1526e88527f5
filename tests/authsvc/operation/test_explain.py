"""`explain`: the same decision as for a broker, with its reason for an operator."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command

from authsvc.core.access import Action, Reason
from authsvc.models import Account, Grant
from authsvc.operation.explain import explain
from authsvc.operation.reasons import SENTENCES
from fleet.models import WeatherStationDevice
from rig.cast import Cast

pytestmark = pytest.mark.sqlite_first


@pytest.fixture
def why(loop, transactional_db):
    return lambda *question, **options: loop.run(explain(*question, **options))


def test_an_allow_names_its_rule(station: Cast, why):
    found = why(station.username, Action.PUBLISH, station.topic("data"))

    assert (found.allowed, found.reason, found.rule) == (True, "grant", "own data")
    assert found.principal == "weatherstation/STATION-001"


def test_a_deny_shows_the_rule_that_comes_closest(station: Cast, why):
    """A typo in the topic is the usual cause: the firmware engineer sees the intended topic."""
    found = why(station.username, Action.PUBLISH, "things/weatherstation/STATION-001/date")

    assert (found.allowed, found.reason) == (False, "no_grant")
    assert found.nearest == "own data: publish things/weatherstation/STATION-001/data"


def test_the_wrong_action_points_at_the_right_one(station: Cast, why):
    found = why(station.username, Action.SUBSCRIBE, station.topic("data"))

    assert found.nearest == "own data: publish things/weatherstation/STATION-001/data"


def test_a_deny_rule_is_named(station: Cast, why):
    rule = Grant.objects.create(
        subject="type:weatherstation", effect="deny", actions="publish", filter="things/+/+/data"
    )

    found = why(station.username, Action.PUBLISH, station.topic("data"))

    assert (found.reason, found.rule) == ("deny_grant", f"grant {rule.pk}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: WeatherStationDevice.objects.update(is_active=False), Reason.DISABLED),
        (lambda: WeatherStationDevice.objects.all().delete(), Reason.UNKNOWN_USERNAME),
        (
            lambda: Account.objects.create(username="fleet-weatherstationdevice-STATION-001"),
            Reason.AMBIGUOUS_IDENTITY,
        ),
    ],
    ids=["disabled", "deleted", "ambiguous"],
)
def test_it_names_the_principal(station: Cast, why, change, reason):
    change()

    found = why(station.username, Action.PUBLISH, station.topic("data"))

    assert found.reason == reason.value
    assert found.sentence


def test_a_given_client_id_is_checked(station: Cast, why):
    own = station.topic("data")

    assert why(station.username, Action.PUBLISH, own).allowed
    assert why(station.username, Action.PUBLISH, own, client_id="STATION-001").allowed
    refused = why(station.username, Action.PUBLISH, own, client_id="STATION-002")
    assert refused.reason == "client_id"
    assert refused.client_ids == (station.username, "STATION-001")


@pytest.mark.sqlite_only
def test_every_reason_has_its_sentence():
    assert set(SENTENCES) == set(Reason)


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("explain", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_the_command_prints_text_or_json(station: Cast):
    code, text = run(station.username, "publish", station.topic("data"))
    assert code == 0
    assert text.startswith("ALLOW  publish things/weatherstation/STATION-001/data")

    code, text = run(station.username, "subscribe", "things/weatherstation/+/cmd")
    assert code == 1
    assert "no_grant: No rule allows this." in text
    assert "own cmd: subscribe things/weatherstation/STATION-001/cmd" in text

    code, text = run(station.username, "publish", "#", "--json")
    assert code == 1
    assert json.loads(text)["reason"] == "wildcard_publish"


@pytest.mark.sqlite_only  # It is refused before any SQL.
@pytest.mark.parametrize(
    ("subject", "text", "message"),
    [
        ("everyone", "a/#/b", "This is not a topic filter"),
        ("everyone", "a/b+", "This is not a topic filter"),
        ("everyone", "", "This is not a topic filter"),
        ("everyone", "things/{device}/x", "There is no placeholder {device}"),
        ("everyone", "things/{device_id/x", "A brace has no counterpart"),
        ("everyone", "$share/g/a", "Grant the filter without"),
        ("everyone", "$CONTROL/#", "cannot be granted"),
        ("somebody", "a/b", "The subject is everyone"),
        ("key:", "a/b", "The subject is everyone"),
    ],
)
@pytest.mark.parametrize("way", ["create", "bulk_create", "full_clean", "update"])
def test_an_invalid_grant_is_refused_when_it_is_written(db, subject, text, message, way):
    grant = Grant(subject=subject, actions="publish", filter=text)

    with pytest.raises(ValidationError) as refused:
        if way == "create":
            grant.save()
        elif way == "bulk_create":
            Grant.objects.bulk_create([grant])
        elif way == "full_clean":
            grant.full_clean()
        else:
            Grant.objects.create(subject="everyone", actions="publish", filter="a/b")
            Grant.objects.update(subject=subject, filter=text)

    assert message in str(refused.value) or (way == "full_clean" and not text)
