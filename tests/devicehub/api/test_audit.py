"""The audit, as programs read it."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc import audit
from authsvc.models import AuditEntry
from devicehub import provisioning, roles
from fleet.models import WeatherStationDevice
from rig.cast import provision
from rig.programs import Program, person, program

pytestmark = pytest.mark.django_db

LIST = "/api/audit/"
KEY = "weatherstation/NORTH-1"


@pytest.fixture
def caller():
    """Return a program of an operator, the role that begins to see the audit."""
    return program(person("ada", roles.OPERATOR))


def recorded(**fields):
    """Store an entry with *fields* in place of its own."""
    defaults = {"actor_kind": "user", "actor": "mara", "action": "device_moved", "object_key": KEY}
    return AuditEntry.objects.create(**(defaults | {"at": timezone.now()} | fields))


def test_an_entry_says_who_changed_what(caller):
    """It has the values before and after, the reason and the address."""
    north = WeatherStationDevice.objects.create(device_id="NORTH-1", site="north")
    actor = audit.Actor("user", "mara", "192.0.2.7")
    with audit.acting(actor), audit.because("new roof"):
        provisioning.move(north, "east")
    (found,) = caller.get(LIST, actor="mara").json()["results"]
    assert found | {"id": 0, "at": ""} == {
        "id": 0,
        "at": "",
        "actor_kind": "user",
        "actor": "mara",
        "address": "192.0.2.7",
        "action": "device_moved",
        "label": "Device moved",
        "object": KEY,
        "before": {"site": "north"},
        "after": {"site": "east"},
        "reason": "new roof",
    }
    assert caller.get(f"{LIST}{found['id']}/").json() == found
    assert caller.get(f"{LIST}{found['id']}/", fields="actor").json() == {"actor": "mara"}


def test_the_list_is_filtered_and_comes_in_pages(caller):
    """The latest is first."""
    now = timezone.now() + timedelta(days=1)
    rows = [recorded(at=now + timedelta(minutes=minutes)).pk for minutes in (0, 1, 1)]
    other = recorded(actor="otto", action="command_sent", object_key="account/x", at=now).pk

    def found(**params):
        return [row["id"] for row in caller.get(LIST, **params).json()["results"]]

    since = {"from": now.isoformat()}
    first = caller.get(LIST, limit=2, **since).json()
    second = caller.get(first["next"]).json()
    assert [row["id"] for row in first["results"]] == [rows[2], rows[1]]
    assert [row["id"] for row in second["results"]] == [other, rows[0]]
    assert found(actor="otto") == found(action="command_sent") == found(object="account/x") == [other]
    assert found(to=(now + timedelta(minutes=1)).isoformat(), **since) == [other, rows[0]]
    assert found(actor="nobody") == []


@pytest.mark.parametrize("params", [{"from": "1"}, {"reason": "x"}, {"actor": "\x00"}, {"limit": "many"}])
def test_a_wrong_parameter_is_refused(caller, params):
    """It is 400."""
    assert caller.get(LIST, **params).status_code == 400


def test_a_list_takes_as_many_queries_for_100_rows_as_for_10(caller):
    """At most 12."""
    counts = []
    for more in (10, 100):
        AuditEntry.objects.bulk_create(
            AuditEntry(at=timezone.now(), actor="mara", action="device_moved", object_key=KEY)
            for _ in range(more)
        )
        caller.get(LIST)
        with CaptureQueriesContext(connection) as queries:
            assert len(caller.get(LIST, limit=1000).json()["results"]) >= more
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_people_with_a_limit_see_those_of_their_devices():
    """Entries of brokers, people and other sites are not found."""
    WeatherStationDevice.objects.create(device_id="NORTH-1", site="north")
    row, broker = recorded(), recorded(object_key="broker/main", action="broker_created")
    northern, southern = (program(person(site, sites=[site])) for site in ("north", "south"))
    assert {found["object"] for found in northern.get(LIST).json()["results"]} == {KEY}
    assert northern.get(f"{LIST}{broker.pk}/").status_code == 404
    assert southern.get(LIST).json()["results"] == []
    assert southern.get(f"{LIST}{row.pk}/").status_code == 404
    assert program(person("ada"), site="south").get(f"{LIST}{row.pk}/").status_code == 404


def test_it_is_for_people_who_may_see_it():
    """A viewer, a key without the scope and a device get 403; nobody writes."""
    row = recorded()
    for one in (
        program(person("vera", roles.VIEWER)),
        program(person("oda"), ["devices:read"]),
        Program(provision("NORTH-2").api_key),
    ):
        assert one.get(LIST).status_code == one.get(f"{LIST}{row.pk}/").status_code == 403
    writer = program(person("ida"))
    assert writer.post(LIST, {}).status_code == writer.delete(f"{LIST}{row.pk}/").status_code == 405
    assert writer.get(f"{LIST}99999999999999999999999/").status_code == 404
