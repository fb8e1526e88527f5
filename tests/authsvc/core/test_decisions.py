"""Decisions on topics: grants, denies, shares and superusers, compared with a naive second implementation."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authsvc.core.access import Action, Reason
from authsvc.core.grants import Rule
from rig import naive
from rig.topic_questions import (
    DEPTH,
    TOPICS,
    a_few,
    any_filters,
    any_grants,
    ask,
    hostile_text,
    legal_filters,
    many,
    scraps,
    somebody,
)

pytestmark = pytest.mark.sqlite_only  # Needs no database.


def split(held: list[Rule], action: Action) -> tuple[list[str], list[str]]:
    """Return the filters that allow *action*, and those that deny it."""
    applicable = [grant for grant in held if action.value in grant.actions.words]
    return [g.filter for g in applicable if g.allow], [g.filter for g in applicable if not g.allow]


def may_use(held: list[Rule], action: Action, topic: str) -> bool:
    """Return the expected decision on one topic, by matching alone."""
    allowing, denying = split(held, action)
    return any(naive.matches(f, topic) for f in allowing) and not any(
        naive.matches(f, topic) for f in denying
    )


# The naive matcher itself, checked with the examples of MQTT 5.0, 4.7.
@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor/Clients", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("a/#", "a/$SYS", True),
        ("ACCOUNTS", "Accounts", False),
    ],
)
def test_the_naive_matcher_agrees_with_the_specification(topic_filter, topic, expected):
    assert naive.matches(topic_filter, topic) is expected


# Subscribing.


@many
@given(any_filters, any_grants)
@example("$share/a/#", [Rule("#")])
@example("+/#", [Rule("a/#"), Rule("b/#")])
@example("#", [Rule("#"), Rule("a/b", allow=False)])
def test_an_allowed_subscription_reaches_nothing_that_was_not_granted(topic_filter, held):
    if not ask(somebody(*held), Action.SUBSCRIBE, topic_filter).allowed:
        return
    inner = naive.inner(topic_filter)

    assert inner is not None
    for topic in naive.matched(inner, DEPTH):
        assert may_use(held, Action.SUBSCRIBE, topic), topic


@many
@given(legal_filters, legal_filters)
@example("#", "+/#")
@example("a/#", "a/+/#")
@example("/+/#", "/#")  # A topic is not empty, so `/#` does not match a level above it.
def test_one_grant_allows_every_subscription_inside_it(granted, requested):
    """Exact in both directions: the alphabet has a word that no grant contains, so enumeration is conclusive."""
    inside = all(naive.matches(granted, topic) for topic in naive.matched(requested, DEPTH))

    assert ask(somebody(Rule(granted)), Action.SUBSCRIBE, requested).allowed is inside


@a_few
@given(legal_filters, any_grants, st.text("ab$ é-", min_size=1, max_size=4))
@example("#", [Rule("#")], "$share")
def test_a_shared_subscription_is_checked_by_its_filter(topic_filter, held, group):
    plain = ask(somebody(*held), Action.SUBSCRIBE, topic_filter)
    shared = ask(somebody(*held), Action.SUBSCRIBE, f"$share/{group}/{topic_filter}")

    assert shared == plain._replace(topic=shared.topic)


@pytest.mark.parametrize(
    "share",
    [
        "$share",
        "$share/",
        "$share//",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/+/a",
        "$share/#",
        "$share/#/a",
        "$share/g+/a",
        "$share/g#/a",
        "$share/g/a#",
        "$share/g/#/a",
        "$share/g/$share",
        "$share/g/$share/",
        "$share/g/$share/h/a",
        "$share/g\x00/a",
    ],
)
@pytest.mark.parametrize(
    "principal",
    [somebody(Rule("#")), somebody(superuser=True)],
    ids=["holder of every grant", "superuser"],
)
def test_an_illegal_share_is_refused(principal, share):
    assert ask(principal, Action.SUBSCRIBE, share)[:2] == (False, Reason.MALFORMED_TOPIC)


def test_a_share_of_everything_needs_a_grant_of_everything():
    assert ask(somebody(Rule("#")), Action.SUBSCRIBE, "$share/g/#").allowed
    assert not ask(somebody(Rule("a/#")), Action.SUBSCRIBE, "$share/g/#").allowed
    assert not ask(somebody(Rule("a/#")), Action.SUBSCRIBE, "$share/a/b").allowed
    assert not ask(somebody(Rule("$share/g/a")), Action.SUBSCRIBE, "$share/g/a").allowed


# Publishing and receiving.


@many
@given(st.sampled_from(TOPICS), any_grants, st.sampled_from([Action.PUBLISH, Action.RECEIVE]))
def test_a_topic_is_allowed_when_an_allow_matches_it_and_no_deny_does(topic, held, action):
    decision = ask(somebody(*held), action, topic)

    assert decision.allowed is may_use(held, action, topic)


@a_few
@given(legal_filters.filter(naive.is_topic), any_grants)
def test_a_deny_wins_wherever_it_stands(topic, held):
    decision = ask(somebody(*held, Rule(topic, allow=False, name="last")), Action.PUBLISH, topic)

    assert decision[:2] == (False, Reason.DENY_GRANT)


@a_few
@given(scraps, st.sampled_from([Action.PUBLISH, Action.RECEIVE]))
def test_only_topics_are_published_and_received(text, action):
    decision = ask(somebody(Rule("#"), Rule("$SYS/#"), Rule("$share/#")), action, text)

    assert not decision.allowed or naive.is_topic(text)
    if naive.is_filter(text) and not naive.is_topic(text) and action is Action.PUBLISH:
        assert decision.reason is Reason.WILDCARD_PUBLISH


# Superusers.


@many
@given(st.one_of(any_filters, hostile_text), st.sampled_from(Action), any_grants)
@example("$CONTROL", Action.SUBSCRIBE, [])
@example("$CONTROL/dynamic-security/v1", Action.PUBLISH, [])
@example("$share/g/$CONTROL/#", Action.SUBSCRIBE, [])
@example("#", Action.SUBSCRIBE, [Rule("#", allow=False)])
@example("#", Action.RECEIVE, [])
@example("$CONTROLS", Action.PUBLISH, [])
@example("$control/a", Action.PUBLISH, [])
@example("a/$CONTROL/b", Action.PUBLISH, [])
def test_a_superuser_is_refused_what_is_malformed_or_reserved_and_nothing_else(text, action, held):
    legal = naive.is_filter(text) if action is Action.SUBSCRIBE else naive.is_topic(text)
    wanted = naive.inner(text) if action is Action.SUBSCRIBE else text
    if not legal or wanted is None:
        is_wildcard = action is Action.PUBLISH and naive.is_filter(text)
        expected = (False, Reason.WILDCARD_PUBLISH if is_wildcard else Reason.MALFORMED_TOPIC)
    elif wanted.split("/")[0] == "$CONTROL":
        expected = (False, Reason.RESERVED_TOPIC)
    else:
        expected = (True, Reason.SUPERUSER)

    assert ask(somebody(*held, superuser=True), action, text)[:2] == expected


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("topic", ["$CONTROL", "$CONTROL/", "$CONTROL/dynamic-security/v1"])
def test_no_grant_allows_the_control_topics(action, topic):
    holder = somebody(Rule("$CONTROL/#"), Rule(topic), Rule("#"))

    assert ask(holder, action, topic)[:2] == (False, Reason.RESERVED_TOPIC)
