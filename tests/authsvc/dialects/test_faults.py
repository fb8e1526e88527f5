"""Faults are never an allow: of the database, the policy, the hashing, a setting."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest

from authsvc import background, directory, policy
from authsvc.caches import clear_caches
from authsvc.core import authority, passwords
from authsvc.dialects import BY_NAME, emqx
from authsvc.dialects.base import Request
from authsvc.freshness import reader
from rig.oracles import reads_as_allow, reads_as_deny
from rig.questions import QUESTIONS, Root, by_question, good

once = pytest.mark.sqlite_first  # The fault is not one of the database.

# ---------------------------------------------------------------- faults


@pytest.fixture
def fault(monkeypatch, loop):
    """Return a function that makes one part of the service fail."""

    async def broken(*_arguments, **_options):
        raise RuntimeError("provoked")

    def broken_too(*_arguments, **_options):
        raise RuntimeError("provoked")

    places = {
        "the database": lambda: (
            monkeypatch.setattr(reader, "fetch", broken),
            monkeypatch.setattr(reader, "sqlite_version", broken_too),
        ),
        "the policy": lambda: (
            monkeypatch.setattr(policy, "cached", broken_too),
            monkeypatch.setattr(policy, "current", broken),
        ),
        "a directory": lambda: monkeypatch.setattr(directory.View, "lookup", broken),
        "the decision": lambda: monkeypatch.setattr(authority, "decide", broken),
        "the password hashing": lambda: (
            monkeypatch.setattr(passwords, "verify", broken_too),
            clear_caches(),
        ),
        "the count of denials": lambda: monkeypatch.setattr(background, "wake", broken_too),
        "the rendering of rules": lambda: monkeypatch.setattr(emqx, "expressed", broken_too),
    }
    return lambda place: places[place]()


@pytest.mark.parametrize(
    "place",
    [
        "the database",
        *(pytest.param(place, marks=once) for place in ("the policy", "a directory", "the decision")),
    ],
)
def test_a_fault_of_ours_is_never_an_allow(question, station, place, fault):
    fault(place)

    for path, query in itertools.product(QUESTIONS, (b"", b"format=text")):
        reply = question(path, good(path, station), query=query)
        assert not reads_as_allow(path, reply), path
        assert reply.status == (200 if path == "emqx/authz" else 503), path


@once
@pytest.mark.parametrize("path", [path for path in QUESTIONS if "password" in good(path, Root("x", "x"))])
def test_a_fault_of_the_hashing_is_never_an_allow(question, station, path, fault):
    fault("the password hashing")

    assert not reads_as_allow(path, question(path, good(path, station)))


@once
@by_question
def test_a_denial_that_cannot_be_counted_is_a_denial(question, station, path, fault):
    """For example if no thread can be started: the answer does not depend on the count."""
    fault("the count of denials")

    reply = None
    with suppress(RuntimeError):
        reply = question(path, good(path, station) | {"username": "stranger"})

    assert reply is not None
    assert reads_as_deny(path, reply)


@once
def test_rules_that_cannot_be_rendered_are_answered_as_a_fault(question, station, fault):
    """`answer` must never raise: EMQX treats a question without an answer as a broken connection."""
    fault("the rendering of rules")

    reply = question("emqx/authn", good("emqx/authn", station))

    assert reply == emqx.UNAVAILABLE


@once
@pytest.mark.parametrize("path", ["go-auth/user", "emqx/authz", "rabbitmq/user", "vernemq/publish"])
def test_a_wrong_setting_is_a_fault_in_the_dialect_of_the_broker(question, station, settings, path):
    """For EMQX a 500 of the server would mean that its next source decides."""
    settings.AUTHSVC_JWT_KEYS = {"k": "too short"}

    reply = question(path, good(path, station))

    assert not reads_as_allow(path, reply)
    assert reply == BY_NAME[path.partition("/")[0]].fault(Request("POST", question=path.partition("/")[2]))
