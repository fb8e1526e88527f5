"""Periods of grants and memberships in groups: in force with the next question, and not a moment longer."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest

from authsvc import gateway
from authsvc.core import authority
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Request
from authsvc.models import Grant
from devicehub.directory import DeviceDirectory
from devicehub.models import DeviceGroup, GroupMember
from rig.asking import sql
from rig.entrances import both_entrances

pytestmark = pytest.mark.usefixtures("nothing_pending")

NOON = 1_893_499_200


def at(seconds):
    return datetime.fromtimestamp(NOON + seconds, UTC)


@pytest.fixture
def clock(monkeypatch):
    """Return a function that sets the wall clock to so many seconds after noon."""

    def set_to(seconds):
        monkeypatch.setattr(time, "time", lambda: NOON + seconds)

    set_to(0)
    return set_to


@pytest.fixture
def judged(monkeypatch):
    """Return a list of the questions that were decided and not answered from the cache."""
    found = []
    decide = authority.decide

    async def watched(question, *arguments, **options):
        found.append(question)
        return await decide(question, *arguments, **options)

    monkeypatch.setattr(authority, "decide", watched)
    return found


def allow(text, subject="everyone", **fields):
    return Grant.objects.create(subject=subject, actions="publish", filter=text, **fields)


@both_entrances
@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_a_period_begins_and_ends_by_the_clock(may, station, clock, effect):
    if effect == "deny":
        allow("news/#")
    allow("news/1", effect=effect, valid_from=at(10), valid_until=at(20.5))

    inside = effect == "allow"
    for seconds, expected in (
        (0, not inside),
        (9.999, not inside),
        (10, inside),
        (20.499, inside),
        (20.5, not inside),
    ):
        clock(seconds)
        assert [may(station, 2, "news/1"), may(station, 2, "news/1")] == [expected, expected], seconds


@pytest.mark.sqlite_only
def test_a_kept_answer_ends_with_the_period(may, station, clock, judged):
    allow("news/1", valid_from=at(10), valid_until=at(20))
    allow("news/1", subject="key:weatherstation/OTHER", valid_from=at(15))

    answers = []
    for seconds in (0, 1, 9.9, 10, 11, 14, 16, 19.9, 20, 21, 99):
        clock(seconds)
        answers.append(may(station, 2, "news/1"))

    assert answers == [False] * 3 + [True] * 5 + [False] * 3
    assert len(judged) == 3


@pytest.mark.sqlite_only
@pytest.mark.parametrize("until", ["never", "", 7])
def test_an_unreadable_period_opens_nothing_and_stops_no_other_grant(may, station, until):
    """The column of SQLite holds any text or number."""
    allow("news/1")
    broken = [allow("news/2"), allow("news/#", effect="deny"), allow("other/1")]
    assert [may(station, 2, topic) for topic in ("news/1", "other/1")] == [False, True]

    table = Grant._meta.db_table
    sql(f"UPDATE {table} SET valid_until = %s WHERE id IN (%s, %s)", until, broken[0].pk, broken[2].pk)
    assert [may(station, 2, topic) for topic in ("news/1", "other/1")] == [False, False]
    Grant.objects.filter(pk=broken[1].pk).delete()
    assert [may(station, 2, topic) for topic in ("news/1", "news/2")] == [True, False]
    allow("news/1", effect="deny")
    sql(f"UPDATE {table} SET valid_until = %s WHERE effect = 'deny'", until)
    assert not may(station, 2, "news/1")


@pytest.mark.sqlite_only
def test_a_clock_that_is_set_back_ends_a_kept_answer(may, station, clock):
    allow("news/1", valid_from=at(10), valid_until=at(20))
    clock(15)
    assert may(station, 2, "news/1")

    clock(5)
    assert not may(station, 2, "news/1")


def test_a_period_that_sql_moves_is_in_force_at_once(may, station, clock):
    grant = allow("news/1", valid_until=at(10))
    clock(11)
    assert not may(station, 2, "news/1")

    sql(f"UPDATE {Grant._meta.db_table} SET valid_until = %s WHERE id = %s", at(20), grant.pk)
    assert may(station, 2, "news/1")


@pytest.fixture
def connect(loop, token, station):
    """Return a function that logs in through EMQX and returns its answer."""
    body = {"username": station.username, "clientid": station.username, "password": station.password}
    headers = ((b"content-type", b"application/json"), (b"authorization", f"Bearer {token}".encode()))

    def ask():
        request = Request("POST", "", headers, json.dumps(body).encode(), "authn", "::1")
        return json.loads(loop.run(gateway.answer(request, BY_NAME["emqx"])).body)

    return ask


def test_emqx_holds_rules_until_a_period_turns(connect, clock):
    allow("news/1", valid_from=at(100), valid_until=at(200))

    opens = []
    for seconds in (0, 98.9, 99.5, 100, 150, 199.5, 200):
        clock(seconds)
        answer = connect()
        opens.append("news/1" in str(answer["acl"]) if "acl" in answer else None)
        if seconds < 200 and "acl" in answer:
            assert answer["expire_at"] == NOON + (100 if seconds < 100 else 200)
    # Within the last second EMQX gets no rules, and asks about each topic.
    assert opens == [False, False, None, True, True, None, False]


def group(slug, *keys):
    made = DeviceGroup.objects.create(slug=slug, name=slug)
    GroupMember.objects.bulk_create(GroupMember(group=made, device_key=key) for key in keys)
    return made


@both_entrances
def test_a_membership_is_in_force_with_the_next_question(may, station, neighbour):
    roof = group("roof", "weatherstation/STATION-001")
    allow("roof/x", "group:roof")
    allow("roof/y", "group:cellar")

    assert [may(one, 2, "roof/x") for one in (station, neighbour)] == [True, False]
    assert not may(station, 2, "roof/y")
    roof.members.create(device_key="weatherstation/STATION-002")
    assert may(neighbour, 2, "roof/x")
    sql(f"DELETE FROM {GroupMember._meta.db_table} WHERE device_key = 'weatherstation/STATION-001'")
    assert [may(one, 2, "roof/x") for one in (station, neighbour)] == [False, True]
    sql(f"UPDATE {DeviceGroup._meta.db_table} SET slug = 'cellar'")
    assert [may(neighbour, 2, topic) for topic in ("roof/x", "roof/y")] == [False, True]
    roof.delete()
    assert not may(neighbour, 2, "roof/y")


def test_a_deny_for_a_group_wins(may, station, neighbour):
    group("roof", "weatherstation/STATION-001")
    allow("things/#", "group:roof", effect="deny")

    assert not may(station, 2, station.topic("data"))
    assert may(neighbour, 2, neighbour.topic("data"))


@pytest.mark.sqlite_only
def test_equal_groups_keep_answers(may, station, judged):
    """On SQLite each commit has the groups read again; the answer stays while they are equal."""
    group("roof", "weatherstation/STATION-001")
    allow("roof/x", "group:roof")
    assert may(station, 2, "roof/x")
    before = len(judged)

    assert may(station, 2, "roof/x")
    assert len(judged) == before
    group("cellar", "weatherstation/STATION-001")
    assert may(station, 2, "roof/x")


@pytest.mark.sqlite_only
def test_groups_are_read_only_for_grants_of_groups(may, station, monkeypatch):
    read = []

    async def watched(directory, key):
        read.append(key)
        return frozenset()

    monkeypatch.setattr(DeviceDirectory, "groups", watched)
    allow("news/1")
    assert may(station, 2, "news/1")
    assert read == []
    allow("news/2", "group:roof")
    assert not may(station, 2, "news/2")
    assert read == ["weatherstation/STATION-001"]
