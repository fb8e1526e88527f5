"""Guessing API keys at /api/token: the limit by key and by address."""

from __future__ import annotations

import httpx
import pytest

from authsvc.serving import failures
from devicehub.api import token as api_token
from rig.entrances import ENTRANCES

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.1"


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Lower the limit of keys, so that few requests reach it."""
    monkeypatch.setattr(api_token, "MANY_KEYS", 8)


@pytest.fixture
def post(loop):
    """Return a function that sends keys one after another and returns the status of each reply."""

    async def send(keys, address, **headers):
        transport = httpx.ASGITransport(ENTRANCES["asgi"], client=(address, 40000))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers
        ) as client:
            replies = [
                await client.post("/api/token", headers={"Authorization": f"Api-Key {key}"}) for key in keys
            ]
        return [reply.status_code for reply in replies]

    return lambda *keys, address=HOME, **headers: loop.run(send(keys, address, **headers))


def guesses(number):
    return [f"guess-{one}" for one in range(number)]


def test_an_address_is_refused_after_many_keys(post, station, caplog):
    assert post(*guesses(api_token.MANY_KEYS + 3)) == [401] * api_token.MANY_KEYS + [429] * 3
    assert post("guess-again", address=ELSEWHERE) == [401]
    assert caplog.text.count("token.locked") == 1
    assert "Too Many Requests" not in caplog.text


def test_a_valid_key_is_never_refused_for_others(post, station):
    """A fleet may share an address, or the site may not know the addresses behind its proxy."""
    post(*guesses(api_token.MANY_KEYS + 3))

    assert post(station.api_key, "guess-again", station.api_key) == [200, 429, 200]


def test_one_key_that_ended_does_not_keep_its_neighbours_out(post, station):
    """A revoked device tries for ever, behind the same router as others."""
    assert post(*["revoked"] * 8) == [401] * 5 + [429] * 3
    assert post(station.api_key, "another") == [200, 401]


def test_it_ends_after_a_minute(post, station, monkeypatch):
    post(*guesses(api_token.MANY_KEYS))
    found = api_token._failures._found
    since, failed = found[HOME]
    found[HOME] = (since - failures.SECONDS, failed)

    assert post(station.api_key, "another") == [200, 401]
    assert len(found[HOME][1]) == 1


def test_a_forged_header_changes_no_address(post, station):
    for number in range(api_token.MANY_KEYS):
        post(f"guess-{number}", **{"X-Forwarded-For": f"203.0.113.{number}"})

    assert post("guess-again") == [429]


def test_a_subnet_of_ipv6_is_one_address(post, station):
    for number, key in enumerate(guesses(api_token.MANY_KEYS)):
        post(key, address=f"2001:db8::{number:x}")

    assert post("guess-again", address="2001:db8::ffff") == [429]


def test_memory_is_bounded(post, transactional_db, monkeypatch):
    monkeypatch.setattr(failures, "MAX_ADDRESSES", 3)
    for number in range(5):
        post("guess", address=f"203.0.113.{number}")

    assert list(api_token._failures._found) == [f"203.0.113.{number}" for number in (2, 3, 4)]
