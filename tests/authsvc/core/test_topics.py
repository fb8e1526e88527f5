"""The decision about topics against a naive second implementation (rig/naive.py), and the known attacks.

Nothing here needs Django or a database.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authsvc.core import authority, grants, topics
from authsvc.core.access import Action, Client, Decision, Principal, Reason, TopicQuestion
from authsvc.core.grants import ActionSet, Rule
from authsvc.core.memory import MemoryDirectory
from rig import naive

pytestmark = pytest.mark.sqlite_only  # needs no database

ROOT = Path(__file__).resolve().parents[3]
FILTERS = naive.filters(naive.LITERALS, 3)
DEPTH = naive.enough(FILTERS)
TOPICS = naive.topics(naive.ALPHABET, DEPTH)
NON_CHARACTERS = [
    *map(chr, range(0xFDD0, 0xFDF0)),
    *(chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFE, 0xFFFF)),
]
QUICK = 0.05  # seconds of processor time, for the longest text that MQTT can carry

a_few = settings(max_examples=100, deadline=None)
many = settings(max_examples=300, deadline=None)

legal_filters = st.sampled_from(FILTERS)
# Mostly illegal: wildcards inside and before the end, and shares, whole, broken and nested.
scraps = st.lists(
    st.sampled_from(["a", "b", "", "$SYS", "+", "#", "a+", "#b", "$share", "$CONTROL", "\x00"]),
    max_size=6,
).map("/".join)
shares = st.builds("$share/{}/{}".format, st.sampled_from(["a", "", "+", "$share", "#"]), legal_filters)
any_filters = st.one_of(legal_filters, shares, scraps)
any_grants = st.lists(
    st.builds(
        Rule, legal_filters, st.sampled_from(ActionSet), st.booleans(), st.sampled_from(["one", "two"])
    ),
    max_size=5,
)
# Every code point, halves of characters too, and often one that means something.
hostile_characters = st.one_of(
    st.sampled_from("/+#$a{}"),
    st.sampled_from(["\x00", "\x1f", "\n", "\x7f", "\x9f", "\xa0", "\ud800", "\udfff", "\ufffd", "\ufffe"]),
    st.sampled_from(NON_CHARACTERS),
    st.characters(exclude_categories=()),
)
# Not st.text(): that makes one character set of the alphabet, where what means something is lost.
hostile_text = st.lists(hostile_characters, max_size=12).map("".join)


def somebody(*held: Rule, superuser: bool = False) -> Principal:
    return Principal(
        "account/somebody", "somebody", superuser=superuser, client_ids=("somebody",), grants=held
    )


def ask(principal: Principal, action: Action, topic: str, client_id: str | None = None) -> Decision:
    """The decision about one topic, asked as a broker would."""
    question = TopicQuestion(Client(principal.username, client_id), action, [topic])
    verdict = asyncio.run(
        authority.decide(question, authority.Rules(), MemoryDirectory([principal]), clock=lambda: 0.0)
    )
    assert verdict.principal is principal
    (decision,) = verdict.decisions
    assert decision.topic == topic
    assert verdict.allowed is decision.allowed
    return decision


def split(held: list[Rule], action: Action) -> tuple[list[str], list[str]]:
    """The filters that allow *action*, and those that deny it."""
    spoken = [grant for grant in held if grant.actions.value in (action.value, "all")]
    return [g.filter for g in spoken if g.allow], [g.filter for g in spoken if not g.allow]


def may_use(held: list[Rule], action: Action, topic: str) -> bool:
    """The truth about one topic, by matching alone."""
    allowing, denying = split(held, action)
    return any(naive.matches(f, topic) for f in allowing) and not any(
        naive.matches(f, topic) for f in denying
    )


# The ruler itself: what MQTT 5.0, 4.7 says in its examples.
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
@example("/+/#", "/#")  # a topic is not empty, so `/#` has no level above it to match
def test_one_grant_allows_every_subscription_inside_it(granted, requested):
    """Exact both ways: the alphabet has a word that no grant says, so enumeration leaves no doubt."""
    inside = all(naive.matches(granted, topic) for topic in naive.matched(requested, DEPTH))

    assert ask(somebody(Rule(granted)), Action.SUBSCRIBE, requested).allowed is inside


@a_few
@given(legal_filters, any_grants, st.text("ab$ é-", min_size=1, max_size=4))
@example("#", [Rule("#")], "$share")
def test_a_shared_subscription_is_judged_by_its_filter(topic_filter, held, group):
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


# covers and overlaps.


@pytest.mark.parametrize("name", ["covers", "overlaps"])
def test_it_equals_enumeration_for_every_pair_of_filters(name):
    """All pairs of up to three levels: each wrong one is (ours first, then theirs, then what we said)."""
    ours: Callable[[str, str], bool] = getattr(topics, name)
    truth: Callable[[str, str], bool] = getattr(naive, name)
    wrong = [
        (one, other, ours(one, other))
        for one in FILTERS
        for other in FILTERS
        if ours(one, other) is not truth(one, other)
    ]

    assert wrong == []


def test_nothing_is_covered_or_free_of_overlap_by_mistake():
    """The half of the equality that security hangs on: too narrow is a nuisance, too wide is a leak."""
    for one in FILTERS:
        for other in FILTERS:
            assert not topics.covers(one, other) or naive.covers(one, other), (one, other)
            assert topics.overlaps(one, other) or not naive.overlaps(one, other), (one, other)


def deep_filters(depth: int) -> st.SearchStrategy[str]:
    levels = st.lists(st.sampled_from([*naive.LITERALS, "+"]), min_size=1, max_size=depth)
    return st.builds(lambda stem, end: "/".join([*stem, *end]), levels, st.sampled_from([[], ["#"]])).filter(
        bool
    )


@given(deep_filters(8), deep_filters(8))
def test_overlap_is_symmetric(one, other):
    assert topics.overlaps(one, other) is topics.overlaps(other, one)


@given(deep_filters(8))
def test_a_filter_covers_and_overlaps_itself(one):
    assert topics.covers(one, one)
    assert topics.overlaps(one, one)


@st.composite
def wider(draw: st.DrawFn, topic_filter: str) -> str:
    """A filter that is likely to cover *topic_filter*: some levels become `+`, the rest may become `#`."""
    levels = [
        level if level == "#" else draw(st.sampled_from([level, level, "+"]))
        for level in topic_filter.split("/")
    ]
    if draw(st.booleans()):
        levels = [*levels[: draw(st.integers(0, len(levels) - 1))], "#"]
    return "/".join(levels)


chains = deep_filters(6).flatmap(
    lambda low: wider(low).flatmap(lambda mid: st.tuples(st.just(low), st.just(mid), wider(mid)))
)


@many
@given(st.one_of(chains, st.tuples(legal_filters, legal_filters, legal_filters)))
@example(("/#", "/+/#", "+/+/#"))
@example(("+/#", "#", "+/#"))
def test_what_is_covered_by_the_covered_is_covered(chain):
    low, mid, high = chain
    if topics.covers(mid, low) and topics.covers(high, mid):
        assert topics.covers(high, low)


@many
@given(st.one_of(chains, st.tuples(legal_filters, legal_filters, legal_filters)))
def test_what_is_covered_overlaps(chain):
    low, mid, _ = chain
    if topics.covers(mid, low):
        assert topics.overlaps(mid, low)


@many
@given(deep_filters(7), deep_filters(7), st.lists(st.sampled_from(naive.ALPHABET), min_size=1, max_size=9))
def test_deep_filters_never_disagree_with_a_topic(one, other, levels):
    """Where enumeration would be too long: one topic that tells the two filters apart, or joins them."""
    topic = "/".join(levels) or "a"
    if topics.covers(one, other) and naive.matches(other, topic):
        assert naive.matches(one, topic)
    if naive.matches(one, topic) and naive.matches(other, topic):
        assert topics.overlaps(one, other)
    assert topics.covers(one, topic) is topics.overlaps(one, topic) is naive.matches(one, topic)


# What is a topic, and what is a filter.


@settings(max_examples=500, deadline=None)
@given(st.one_of(hostile_text, scraps))
@example("")
@example("a/#/b")
@example("a+")
@example("+a")
@example("a/#\n")
@example("\ud83d\ude00")
def test_well_formedness_equals_the_naive_definition(text):
    assert topics.is_topic(text) is naive.is_topic(text)
    assert topics.is_filter(text) is naive.is_filter(text)
    assert topics.inner_filter(text) == naive.inner(text)


@pytest.mark.parametrize(
    ("text", "is_topic", "is_filter"),
    [
        ("", False, False),
        ("/", True, True),
        (" ", True, True),
        ("a b/é", True, True),
        ("+", False, True),
        ("#", False, True),
        ("/#", False, True),
        ("+/+/#", False, True),
        ("a/#/b", False, False),
        ("#/", False, False),
        ("##", False, False),
        ("a#", False, False),
        ("a+", False, False),
        ("+a/b", False, False),
        ("++", False, False),
        ("+#", False, False),
        ("a\x00", False, False),
        ("\x00", False, False),
        ("a\n", False, False),
        ("a\x9f", False, False),
        ("a\ud800", False, False),
        ("\udfff", False, False),
        ("\U0010fffd", True, True),
    ],
)
def test_well_formedness(text, is_topic, is_filter):
    assert topics.is_topic(text) is is_topic
    assert topics.is_filter(text) is is_filter


@pytest.mark.parametrize("character", ["a", "é", "€", "😀", "/"])
def test_the_longest_text_has_65535_bytes(character):
    width = len(character.encode())
    longest = "a" * (65_535 % width) + character * (65_535 // width)

    for well_formed in (topics.is_topic, topics.is_filter):
        assert well_formed(longest)
        assert not well_formed("a" + longest)


def test_no_topic_holds_a_noncharacter():
    """MQTT 5.0, 1.5.4 names them, all 66, beside the control characters."""
    accepted = [
        f"U+{ord(character):04X}"
        for character in NON_CHARACTERS
        if topics.is_topic(f"a/{character}") or topics.is_filter(f"a/{character}/#")
    ]

    assert accepted == []


def quickest(work: Callable[[], object]) -> float:
    """The least processor time of five runs, so that a busy machine does not fail the test."""
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


LONG = {
    "32,000 levels": "a/" * 31_999 + "b",
    "only separators": "/" * 65_535,
    "32,000 wildcards": "+/" * 31_999 + "#",
    "a wildcard too early": "#/" * 32_000,
    "shares of shares": "$share/a/" * 7_000 + "b",
    "one level": "a" * 65_535,
    "more than MQTT can carry": "a/" * 256 * 1024,  # as much as a request holds
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
def test_a_very_long_topic_is_answered_fast(text):
    """Linear and without recursion, whatever it is held against."""
    held = [Rule(text), Rule("+/" * 31_999 + "+"), Rule("a/+/#"), Rule("/" * 40 + "b/#", allow=False)]

    for action in Action:
        assert quickest(lambda action=action: ask(somebody(*held), action, text)) < QUICK
    for function in (topics.covers, topics.overlaps):
        assert quickest(lambda function=function: function(text[:65_535], "+/" * 32_000 + "#")) < QUICK


# Placeholders.

templates = st.one_of(
    st.lists(
        st.sampled_from(
            [
                "a",
                "",
                "+",
                "#",
                "{username}",
                "{client_id}",
                "x{device_id}y",
                "{type}{prefix}",
                "{other}",
                "{",
            ]
        ),
        min_size=1,
        max_size=6,
    ).map("/".join),
    hostile_text,
)
names = st.sampled_from([*sorted(grants.PLACEHOLDERS), "other", ""])
values = st.dictionaries(
    names,
    st.one_of(st.sampled_from(["A1", "", "+", "#", "a/b", "/", "{username}", "$SYS", "a\x00"]), hostile_text),
)


def shape(text: str) -> tuple[int, int, int]:
    return text.count("/"), text.count("+"), text.count("#")


@settings(max_examples=500, deadline=None)
@given(templates, values)
@example("a/{username}/b", {"username": "#"})
@example("{username}{client_id}", {"username": "{client_id}", "client_id": "A1"})
def test_a_filled_grant_is_no_wider_than_its_template(template, given_values):
    filled = grants.fill(template, given_values)

    if filled is not None:
        assert shape(filled) == shape(template)
        assert filled.count("\x00") == template.count("\x00")


@pytest.mark.parametrize("value", ["", "+", "#", "/", "a/b", "a+", "#a", "a\x00", "\x00", None])
@pytest.mark.parametrize("name", sorted(grants.PLACEHOLDERS))
def test_a_value_that_could_change_the_levels_fills_nothing(name, value):
    template = f"things/{{{name}}}/x"

    assert grants.fill(template, {} if value is None else {name: value}) is None


def test_a_value_is_not_filled_again():
    assert grants.fill("a/{username}", {"username": "{type}", "type": "x"}) == "a/{type}"


@many
@given(templates)
def test_a_template_without_a_problem_fills_to_a_filter(template):
    """With harmless values, and whatever the template: problem() and fill() never raise."""
    filled = grants.fill(template, dict.fromkeys(grants.PLACEHOLDERS, "A1"))

    if grants.problem(template) == "":
        assert filled is not None
        assert naive.inner(filled) == filled
        assert "{" not in filled


@pytest.mark.parametrize(
    "template",
    [
        "",
        "a#",
        "a/#/b",
        "a+",
        "{username}#",
        "+{username}",
        "{Username}",
        "{}",
        "{ username }",
        "{username",
        "username}",
        "{{username}}",
        "a/\x00",
        "a/\n",
        "\ud800",
        "$share",
        "$share/g/a",
        "$share/{username}/a",
    ],
)
def test_a_template_that_can_be_no_grant_is_named(template):
    assert grants.problem(template) != ""


@pytest.mark.parametrize(
    "template",
    ["#", "+", "/", "/#", "+/{type}/#", "things/{type}/{device_id}/x", "$SYS/#", "{prefix}/{username}"],
)
def test_a_template_of_a_grant_has_no_problem(template):
    assert grants.problem(template) == ""


@a_few
@given(hostile_text)
@example("+")
@example("#")
@example("a/b")
@example("")
def test_a_client_id_reaches_no_level_but_its_own(client_id):
    """A client that may connect as anything chooses the value of {client_id}, and of nothing else."""
    rover = Principal("account/rover", "rover", client_ids=None, grants=(Rule("rovers/{client_id}/x"),))

    for reach in ("#", "+/#", "rovers/#", "rovers/+/x", "rovers/other/x", "rovers//x"):
        decision = ask(rover, Action.SUBSCRIBE, reach, client_id)
        assert not decision.allowed or (client_id == "other" and reach == "rovers/other/x")


def test_placeholders_are_filled_from_who_asks():
    rover = Principal(
        "account/rover",
        "rover",
        client_ids=None,
        grants=(Rule("{username}/{type}/{client_id}"),),
        attributes={"type": "car", "username": "other", "client_id": "other"},
    )

    assert ask(rover, Action.PUBLISH, "rover/car/c1", client_id="c1").allowed
    assert not ask(rover, Action.PUBLISH, "other/car/c1", client_id="c1").allowed
    assert not ask(rover, Action.PUBLISH, "rover/car/other", client_id="c1").allowed
    for unknown in ("rover/car/", "rover/car/other", "rover/car/None", "rover/car/{client_id}"):
        assert not ask(rover, Action.PUBLISH, unknown, client_id=None).allowed


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
def test_no_grant_opens_the_control_channel(action, topic):
    holder = somebody(Rule("$CONTROL/#"), Rule(topic), Rule("#"))

    assert ask(holder, action, topic)[:2] == (False, Reason.RESERVED_TOPIC)


# A station (what devicehub.kinds.topics.owned() gives a device) under the attacks of the threat model.

OWN = "things/weatherstation/STATION-001"
NEIGHBOUR = "things/weatherstation/STATION-002"


@pytest.fixture
def station() -> Principal:
    return Principal(
        "weatherstation/STATION-001",
        "fleet-weatherstationdevice-STATION-001",
        client_ids=("STATION-001", "fleet-weatherstationdevice-STATION-001"),
        grants=(
            Rule(f"{OWN}/data", ActionSet.PUBLISH, name="own data"),
            Rule(f"{OWN}/status", ActionSet.PUBLISH, name="own status"),
            Rule(f"{OWN}/reply", ActionSet.PUBLISH, name="own reply"),
            Rule(f"{OWN}/cmd", ActionSet.SUBSCRIBE, name="own cmd"),
            Rule(f"{OWN}/cmd", ActionSet.RECEIVE, name="own cmd"),
        ),
        attributes={"type": "weatherstation", "device_id": "STATION-001", "prefix": "things"},
    )


OWNED = [
    *((Action.PUBLISH, f"{OWN}/{message_type}") for message_type in ("data", "status", "reply")),
    *((action, f"{OWN}/cmd") for action in (Action.SUBSCRIBE, Action.RECEIVE)),
    (Action.SUBSCRIBE, f"$share/g/{OWN}/cmd"),
]


@pytest.mark.parametrize(("action", "topic"), OWNED)
def test_a_station_may_be_itself(station, action, topic):
    assert ask(station, action, topic)[:2] == (True, Reason.GRANT)


ATTACKS = {
    "T-A1 a filter that reaches a sibling": [
        (Action.SUBSCRIBE, topic_filter)
        for topic_filter in (
            "#",
            "+/#",
            "/#",
            "things/#",
            "things/+/+/cmd",
            "things/weatherstation/+/cmd",
            "things/weatherstation/#",
            "+/weatherstation/STATION-001/cmd",
            "things/+/STATION-001/cmd",
            "+/+/+/+",
            f"{OWN}/#",
            f"{OWN}/+",
            f"{OWN}/cmd/#",
            f"{OWN}/cmd/+",
            f"{NEIGHBOUR}/cmd",
            f"{NEIGHBOUR}/#",
            "$share/g/#",
            "$share/g/things/+/+/cmd",
            f"$share/g/{NEIGHBOUR}/cmd",
        )
    ],
    "T-A1 a wildcard in a publish": [
        (Action.PUBLISH, topic)
        for topic in ("#", "+", f"{OWN}/+", f"{OWN}/#", "things/+/+/data", f"{OWN}/dat+")
    ],
    "T-A2 a topic that looks like the own one": [
        (
            action,
            f"{before}{OWN if own is None else own}/{'data' if action is Action.PUBLISH else 'cmd'}{after}",
        )
        for action in Action
        for before, own, after in (
            ("/", None, ""),
            (" ", None, ""),
            ("./", None, ""),
            ("\ufeff", None, ""),
            ("", None, "/"),
            ("", None, " "),
            ("", None, "\n"),
            ("", None, "\r\n"),
            ("", None, "\x00"),
            ("", None, "\u200b"),
            ("", None, "\u202e"),
            ("", None, "/."),
            ("", None, "/.."),
            ("", None, "%00"),
            ("", None, "?"),
            ("", None, ",#"),
            ("", OWN.lower(), ""),
            ("", OWN.upper(), ""),
            ("", "Things/weatherstation/STATION-001", ""),
            ("", "things/weather_station/STATION-001", ""),
            ("", "things/weatherstationdevice/STATION-001", ""),
            ("", "things/WeatherStation/STATION-001", ""),
            ("", "things//weatherstation/STATION-001", ""),
            ("", "things/weatherstation/STATION-001/", ""),
            ("", "things/weatherstation/./STATION-001", ""),
            ("", "things/weatherstation/STATION-002/../STATION-001", ""),
            ("", "things%2Fweatherstation%2FSTATION-001", ""),
            ("", "things\\weatherstation\\STATION-001", ""),
            ("", "things.weatherstation.STATION-001", ""),
            ("", "things/weatherstation/STATION\u2010001", ""),
            ("", "things/weatherstation/ＳＴＡＴＩＯＮ-001", ""),
            ("", "things/weatherstation/STATİON-001", ""),
            ("", "things/weatherstation/{device_id}", ""),
            ("", "{prefix}/{type}/{device_id}", ""),
        )
    ],
    "T-A2 data and status by another name": [
        (Action.PUBLISH, f"{OWN}/{word}")
        for word in ("Data", "DATA", "dat", "data2", "data/x", "", "telemetry", "data\t")
    ],
    "T-A3 an id that is the beginning of another": [
        (action, f"things/weatherstation/{device_id}/{'data' if action is Action.PUBLISH else 'cmd'}")
        for action in Action
        for device_id in (
            "STATION-00",
            "STATION-0011",
            "STATION-001x",
            "XSTATION-001",
            "STATION",
            "S",
            "",
            "TATION-001",
        )
    ],
    "T-A4 other words that brokers know": [
        (action, f"{prefix}/{OWN}/{'data' if action is Action.PUBLISH else 'cmd'}")
        for action in Action
        for prefix in (
            "$queue",
            "$exclusive",
            "$delayed/10",
            "$SYS",
            "$CONTROL",
            "$events",
            "$file",
            "$SHARE/g",
            "$share",
            "$share/g/$share/h",
            "$share/g/$queue",
            "$share/g/$exclusive",
            "$queue/$share/g",
            "$share//g",
            "$share/+",
            "$local",
            "$",
        )
    ],
    "T-A4 channels of the broker": [
        (action, topic)
        for action in Action
        for topic in (
            "$SYS/broker/uptime",
            "$SYS/#",
            "$CONTROL/dynamic-security/v1",
            "$CONTROL/#",
            "$share/g/$CONTROL/#",
            "$share/g/$SYS/#",
            "$events/client_connected",
            "$file/x/init",
            f"$delayed/10/{OWN}/cmd",
            "$queue/#",
            "$exclusive/#",
            "$share",
            "$share/g",
        )
    ],
    "T-A4 a publish into a share": [
        (action, f"$share/g/{OWN}/{word}")
        for action in (Action.PUBLISH, Action.RECEIVE)
        for word in ("data", "cmd")
    ],
    "T-A7 the other direction": [
        (Action.PUBLISH, f"{OWN}/cmd"),
        *(
            (action, f"{share}{OWN}/{word}")
            for action in (Action.SUBSCRIBE, Action.RECEIVE)
            for share in ("", "$share/g/")
            for word in ("data", "status", "reply")
        ),
    ],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_station_reaches_nothing_else(station, attack):
    for action, topic in ATTACKS[attack]:
        assert not ask(station, action, topic).allowed, (action, topic)


@a_few
@given(
    st.sampled_from(OWNED),
    st.integers(0, 60),
    hostile_characters,
    st.sampled_from(["replace", "insert", "cut"]),
)
def test_a_station_owns_no_topic_with_one_wrong_character(owned, position, character, change):
    """T-A2 and T-A3 for every place: exact, never a prefix, never folded."""
    action, topic = owned
    position %= len(topic)
    head, tail = topic[:position], topic[position + (change != "insert") :]
    changed = head + (character if change != "cut" else "") + tail
    if naive.inner(changed) in {own for allowed, own in OWNED if allowed is action}:
        return  # only the group of a share was touched, or nothing at all
    held = (Rule(own, ActionSet(allowed.value)) for allowed, own in OWNED if not own.startswith("$"))

    assert not ask(somebody(*held), action, changed).allowed


@pytest.mark.parametrize(
    "word", ["PUBLISH", "Publish", "publish ", "", "all", "read", "write", "1", 0, 1, 2, 3, True, None]
)
def test_a_word_that_is_no_action_is_refused(station, word):
    """T-A8: whatever reaches the decision instead of an Action."""
    with pytest.raises(ValueError):
        Action(word)
    for _, topic in OWNED:
        assert not ask(station, word, topic).allowed


def test_a_client_id_that_is_not_the_stations_own_is_refused_before_the_topic(station):
    for client_id in ("STATION-002", "STATION-0011", "station-001", "", "STATION-001 "):
        assert ask_refusal(station, client_id) is Reason.CLIENT_ID
    assert ask(station, Action.PUBLISH, f"{OWN}/data", "STATION-001").allowed


def ask_refusal(principal: Principal, client_id: str) -> Reason:
    question = TopicQuestion(Client(principal.username, client_id), Action.PUBLISH, [f"{OWN}/data"])
    verdict = asyncio.run(authority.decide(question, authority.Rules(), MemoryDirectory([principal])))
    assert not verdict.allowed
    return verdict.decisions[0].reason


def test_each_of_several_topics_has_its_own_decision(station):
    """And the whole is allowed only when all of it is; nothing asked is nothing allowed."""
    wanted = [f"{OWN}/cmd", f"{NEIGHBOUR}/cmd", "a\x00", f"{OWN}/cmd"]
    directory = MemoryDirectory([station])

    def answers(asked: list[str]):
        question = TopicQuestion(Client(station.username, None), Action.SUBSCRIBE, asked)
        return asyncio.run(authority.decide(question, authority.Rules(), directory))

    verdict = answers(wanted)

    assert [decision.topic for decision in verdict.decisions] == wanted
    assert [decision.allowed for decision in verdict.decisions] == [True, False, False, True]
    assert not verdict.allowed
    assert not answers([]).allowed


IMPORT_ALL = """
import importlib, pkgutil, sys
for hidden in ("django", "asgiref", "psycopg", "paho", "structlog"):
    sys.modules[hidden] = None
import authsvc.core, authsvc.dialects
for package in (authsvc.core, authsvc.dialects):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
"""


def test_core_and_dialects_import_without_django():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 0, done.stderr
    imported = done.stdout.split()
    assert {"authsvc.core.authority", "authsvc.core.memory", "authsvc.dialects.go_auth"} <= set(imported)
