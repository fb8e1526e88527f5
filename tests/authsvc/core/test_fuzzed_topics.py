"""Fuzzed topic filters. rig/oracles.py has the expected properties."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rig.examples import examples
from rig.fuzzed import hostile, quick
from rig.oracles import judge_template, judge_topics

pytestmark = pytest.mark.sqlite_only  # The parsers need no database, and the entrance reads one row of it.


levels = st.lists(
    st.one_of(
        st.sampled_from(["", "+", "+", "#", "a", "b", "$SYS", "$CONTROL", "$share", "things"]), hostile
    ),
    max_size=12,
).map("/".join)
LONG = [
    "/" * 65_535,
    "+/" * 32_767 + "#",
    "a/" * 32_000,
    "é" * 32_767,
    "$share/g/" * 7_000,
    "{username}" * 6_000,
]


# Topics.


@settings(quick, max_examples=examples(80))
@given(levels, levels)
@example("+/#", "#")
@example("/#", "/+/#")
@example("a/#", "a")
def test_filters_are_related_as_their_topics_are(granted, wanted):
    judge_topics(granted, wanted)


@settings(quick, max_examples=examples(80))
@given(st.data())
def test_a_filter_that_was_made_narrower_is_covered(data):
    """Random filters are seldom related, so the second one is derived from the first."""
    granted = data.draw(st.lists(st.sampled_from(["", "+", "a", "b", "$SYS"]), min_size=1, max_size=9))
    wanted = [data.draw(st.sampled_from([level, "a", "+", ""])) for level in granted]
    tails = st.sampled_from([[], ["#"], ["a"], ["+", "#"]])

    judge_topics("/".join(granted + data.draw(tails)), "/".join(wanted + data.draw(tails)))


@pytest.mark.parametrize("granted", LONG, ids=range(len(LONG)))
@pytest.mark.parametrize("wanted", LONG, ids=range(len(LONG)))
def test_the_longest_texts_are_judged_without_recursion(granted, wanted):
    judge_topics(granted, wanted)
    judge_template(granted, {"username": wanted[:9]})


@settings(quick, max_examples=examples(80))
@given(
    st.lists(
        st.one_of(st.sampled_from(["{username}", "{client_id}", "{x}", "/", "+", "#"]), hostile), max_size=8
    ),
    hostile,
    hostile,
)
def test_a_template_fills_to_the_levels_it_has(parts, username, client_id):
    judge_template("".join(parts), {"username": username, "client_id": client_id})
