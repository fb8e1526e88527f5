"""Topics and filters: legality, coverage, overlap."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authsvc.core import topics
from authsvc.core.access import Action
from authsvc.core.grants import Rule
from rig import naive
from rig.examples import examples
from rig.topic_questions import (
    FILTERS,
    NON_CHARACTERS,
    QUICK,
    ask,
    hostile_text,
    legal_filters,
    many,
    scraps,
    somebody,
)

pytestmark = pytest.mark.sqlite_only  # Needs no database.


# covers and overlaps.


@pytest.mark.parametrize("name", ["covers", "overlaps"])
def test_it_equals_enumeration_for_every_pair_of_filters(name):
    """All pairs of up to three levels; a wrong one is (granted, wanted, our result)."""
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
    """The half of the equality that security needs: too narrow is a nuisance, too wide is a leak."""
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
    """Return a filter that is likely to cover *topic_filter*: some levels become `+`, the rest may become `#`."""
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
def test_coverage_is_transitive(chain):
    low, mid, high = chain
    if topics.covers(mid, low) and topics.covers(high, mid):
        assert topics.covers(high, low)


@many
@given(st.one_of(chains, st.tuples(legal_filters, legal_filters, legal_filters)))
def test_covered_filters_overlap(chain):
    low, mid, _ = chain
    if topics.covers(mid, low):
        assert topics.overlaps(mid, low)


@many
@given(deep_filters(7), deep_filters(7), st.lists(st.sampled_from(naive.ALPHABET), min_size=1, max_size=9))
def test_deep_filters_never_disagree_with_a_topic(one, other, levels):
    """For filters too deep to enumerate: one topic that only one of them matches, or both."""
    topic = "/".join(levels) or "a"
    if topics.covers(one, other) and naive.matches(other, topic):
        assert naive.matches(one, topic)
    if naive.matches(one, topic) and naive.matches(other, topic):
        assert topics.overlaps(one, other)
    assert topics.covers(one, topic) is topics.overlaps(one, topic) is naive.matches(one, topic)


# Well-formedness.


@settings(max_examples=examples(150), deadline=None)
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
    """MQTT 5.0, 1.5.4 lists all 66, besides the control characters."""
    accepted = [
        f"U+{ord(character):04X}"
        for character in NON_CHARACTERS
        if topics.is_topic(f"a/{character}") or topics.is_filter(f"a/{character}/#")
    ]

    assert accepted == []


def quickest(work: Callable[[], object]) -> float:
    """Return the least processor time of five runs, so that a busy machine does not fail the test."""
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
    "more than MQTT can carry": "a/" * 256 * 1024,  # The most that a request can hold.
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
def test_a_very_long_topic_is_answered_fast(text):
    """The time is linear and there is no recursion, for any filter that it is compared with."""
    held = [Rule(text), Rule("+/" * 31_999 + "+"), Rule("a/+/#"), Rule("/" * 40 + "b/#", allow=False)]

    for action in Action:
        assert quickest(lambda action=action: ask(somebody(*held), action, text)) < QUICK
    for function in (topics.covers, topics.overlaps):
        assert quickest(lambda function=function: function(text[:65_535], "+/" * 32_000 + "#")) < QUICK
