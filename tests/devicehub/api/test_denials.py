"""Denials, as programs read them."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import roles
from devicehub.api.paging import Cursor
from fleet.models import WeatherStationDevice
from rig.cast import provision
from rig.denied import denial
from rig.programs import Program, person, program

pytestmark = pytest.mark.django_db

LIST = "/api/denials/"


@pytest.fixture
def caller():
    """Return a program of an administrator."""
    return program(person("ada"))


def test_a_denial_has_its_reason_in_words(caller):
    """The topic of another device names that device."""
    WeatherStationDevice.objects.create(device_id="STATION-001")
    row = denial(count=2**40)
    found = caller.get(f"{LIST}{row.pk}/").json()
    assert (found["reason"], found["sentence"]) == ("no_grant", "This topic belongs to STATION-002.")
    assert (found["action"], found["broker"], found["count"]) == ("publish", "orchard-main", 2**40)
    assert found["dismissed_at"] is None
    assert caller.get(LIST).json()["results"] == [found]
    assert caller.get(f"{LIST}{row.pk}/", fields="count").json() == {"count": 2**40}


def test_logins_and_the_rest_are_named(caller):
    """The action of a login is connect, and a row of the rest has none."""
    denial(action="user", reason=Reason.WRONG_PASSWORD)
    denial(action="more", reason=Denial.REST, principal="", username="")
    found = {row["reason"]: (row["action"], row["sentence"]) for row in caller.get(LIST).json()["results"]}
    assert found == {
        "wrong_password": ("connect", "The password is wrong."),
        "more": ("", "Only the latest refusals of unknown names and callers are listed one by one."),
    }


def test_questions_about_superusers_are_left_out(caller):
    """Brokers ask them for every client; pages leave them out too."""
    row = denial(reason=Reason.NOT_SUPERUSER)
    assert caller.get(LIST).json()["results"] == []
    assert caller.get(f"{LIST}{row.pk}/").status_code == 404


def test_the_list_is_filtered(caller):
    """The latest is first, and each filter names one."""
    now = timezone.now()
    denial(topic="a", last_at=now - timedelta(days=2), broker="old")
    denial(topic="b", principal="account/ingest", dismissed_at=now)
    denial(topic="c", dialect="vernemq", reason=Reason.DENY_GRANT, last_at=now - timedelta(days=1))

    def topics(**params):
        return "".join(row["topic"] for row in caller.get(LIST, **params).json()["results"])

    assert topics() == "bca"
    assert topics(principal="account/ingest") == "b"
    assert topics(reason="deny_grant") == "c"
    assert topics(dialect="vernemq") == "c"
    assert topics(broker="old") == "a"
    assert (topics(dismissed="true"), topics(dismissed="false")) == ("b", "ca")
    assert topics(**{"from": (now - timedelta(days=1)).isoformat()}) == "bc"
    assert topics(to=(now - timedelta(days=1)).isoformat()) == "a"


@pytest.mark.parametrize(
    "params",
    [{"dismissed": "maybe"}, {"from": "x"}, {"username": "x"}, {"reason": "a\x00"}, {"fields": "hash"}],
)
def test_a_wrong_parameter_is_refused(caller, params):
    """It is 400."""
    assert caller.get(LIST, **params).status_code == 400


def test_pages_follow_times_that_are_equal(caller):
    """No row is left out or repeated."""
    now = timezone.now()
    rows = {denial(topic=str(number), last_at=now).pk for number in range(5)}
    seen, url = [], f"{LIST}?limit=2"
    while url:
        page = caller.get(url).json()
        seen += [row["id"] for row in page["results"]]
        url = page["next"]
    assert (len(seen), set(seen)) == (5, rows)


def test_a_list_takes_as_many_queries_for_100_rows_as_for_10(caller):
    """At most 12."""
    counts = []
    for more in (10, 100):
        now = timezone.now()
        Denial.objects.bulk_create(
            Denial(topic=f"{more}/{number}", reason="no_grant", action="publish", first_at=now, last_at=now)
            for number in range(more)
        )
        caller.get(LIST)
        with CaptureQueriesContext(connection) as queries:
            assert len(caller.get(LIST, limit=1000).json()["results"]) >= more
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_people_with_a_limit_see_those_of_their_devices():
    """Accounts and unknown names belong to no site; another site is 404."""
    WeatherStationDevice.objects.create(device_id="STATION-001", site="north")
    row = denial()
    denial(topic="x", principal="account/ingest")
    denial(topic="y", principal="")
    north, south = (program(person(site, sites=[site])) for site in ("north", "south"))
    assert [found["id"] for found in north.get(LIST).json()["results"]] == [row.pk]
    assert south.get(LIST).json()["results"] == []
    assert south.get(f"{LIST}{row.pk}/").status_code == 404
    assert north.get(f"{LIST}{row.pk}/").status_code == 200
    narrow = program(person("ada"), site="south")
    assert narrow.get(LIST).json()["results"] == []


def test_they_are_for_people_who_may_see_them():
    """A viewer sees them; without the permission or the scope it is 403, also for a device."""
    row = denial()
    assert program(person("vera", roles.VIEWER)).get(LIST).status_code == 200
    for one in (
        program(person("oda"), ["devices:read"]),
        program(person("ned", "")),
        Program(provision("NORTH-2").api_key),
    ):
        assert one.get(LIST).status_code == one.get(f"{LIST}{row.pk}/").status_code == 403


@pytest.mark.parametrize("number", ["0", "99999999999999999999999"])
def test_an_unknown_number_is_not_found(caller, number):
    """A number beyond 64 bits is like any other."""
    assert caller.get(f"{LIST}{number}/").status_code == 404


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_cursor_beyond_the_calendar_is_refused(caller, moment):
    """No year of UTC has its time."""
    answer = caller.get(LIST, cursor=str(Cursor((moment, 1))))
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-cursor")
