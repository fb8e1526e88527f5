"""Answers that expire are cached until then: rules for EMQX have an expiry, and so have tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from authsvc import chain, conf, gateway
from authsvc.core import authority, tokens
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Reply, Request
from authsvc.dialects.emqx import end_of_rules

NOON = 1_893_499_200  # A whole minute.


@pytest.fixture
def clock(monkeypatch) -> Callable[[float], None]:
    """Return a function that sets the wall clock."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: seconds)

    set_to(NOON)
    return set_to


@pytest.fixture
def judged(monkeypatch) -> list[object]:
    """Return a list of the questions that were decided and not answered from the cache."""
    found: list[object] = []
    decide = authority.decide

    async def watched(question, *arguments, **options):
        found.append(question)
        return await decide(question, *arguments, **options)

    monkeypatch.setattr(authority, "decide", watched)
    return found


@pytest.fixture
def login(loop, token, station) -> Callable[[], Reply]:
    """Return a function that logs in through EMQX."""
    body = {"username": station.username, "clientid": station.username, "password": station.password}
    headers = ((b"content-type", b"application/json"), (b"authorization", f"Bearer {token}".encode()))

    def ask() -> Reply:
        request = Request("POST", "", headers, json.dumps(body).encode(), "authn", "::1")
        return loop.run(gateway.answer(request, BY_NAME["emqx"]))

    return ask


@pytest.mark.parametrize("ttl", [1, 2, 3, 59, 60, 119, 120, 121, 3600, 86_400])
@pytest.mark.parametrize("now", [NOON, NOON + 0.5, NOON + 29.999, NOON + 59.999])
def test_the_expiry_of_rules_is_near_the_ttl_and_never_beyond_it(ttl, now):
    end, until = end_of_rules(now, ttl)

    assert now + ttl / 2 - 1 <= end - 1e-3 <= now + ttl
    assert end > now
    assert ttl < 120 or end % 60 == 0
    assert now < until <= now + 60
    assert end_of_rules(until - 0.001, ttl)[0] == end < end_of_rules(until, ttl)[0]


@pytest.mark.sqlite_only
def test_logins_through_emqx_are_decided_once_a_minute(login, judged, clock):
    replies = []
    for seconds in (0, 30, 59.9, 60, 60.1):
        clock(NOON + seconds)
        replies.append(json.loads(login().body)["expire_at"])

    assert replies == [NOON + 3600] * 3 + [NOON + 3660] * 2
    assert len(judged) == 2


@pytest.mark.sqlite_only
def test_rules_expire_with_the_password_at_the_latest(login, station, clock):
    for seconds in (90, 3605):
        ends = NOON + seconds
        device = station.device
        device.password_expires_at = datetime.fromtimestamp(ends, UTC)
        device.save(update_fields=["password_expires_at"])

        assert json.loads(login().body)["expire_at"] == min(ends, NOON + 3600)


@pytest.mark.sqlite_only
def test_a_disabled_device_is_refused_within_the_minute(login, station, clock):
    assert b"allow" in login().body
    station.device.is_active = False
    station.device.save()

    assert login().body == b'{"result":"deny"}'


@pytest.mark.sqlite_only
def test_an_answer_to_a_token_is_cached_until_it_expires(loop, token, station, judged, clock):
    """Each question still checks that the token is that of an active device."""
    version = loop.run(chain.configured().lookup(station.username)).version
    bearer = tokens.issue(station.username, version, conf.options().jwt_keys, ttl=60, now=NOON)
    body = {"clientid": station.username, "topic": station.topic("data"), "acc": 2}
    headers = ((b"content-type", b"application/json"), (b"authorization", f"Bearer {bearer}".encode()))

    def ask() -> int:
        request = Request("POST", f"k={token}", headers, json.dumps(body).encode(), "acl", "::1")
        return int(loop.run(gateway.answer(request, BY_NAME["jwt"])).status)

    assert [ask(), ask()] == [200, 200]
    assert len(judged) == 1
    station.device.is_active = False
    station.device.save()
    assert ask() == 403
    station.device.is_active = True
    station.device.save()
    assert ask() == 200
    before = len(judged)
    clock(NOON + 59.99)
    ask()
    assert len(judged) == before
    clock(NOON + 60)
    ask()
    assert len(judged) == before + 1
