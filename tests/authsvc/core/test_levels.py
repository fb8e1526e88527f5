"""The levels that are marked are those at which a rule does not fit."""

from __future__ import annotations

import time

import pytest
from hypothesis import given

from authsvc.core import topics
from authsvc.core.levels import LONGEST, SHOWN, Level, compare, differing
from rig.topic_questions import legal_filters, many

pytestmark = pytest.mark.sqlite_only


@many
@given(granted=legal_filters, requested=legal_filters)
def test_a_level_is_marked_only_if_the_rule_does_not_fit(granted, requested):
    assert bool(differing(granted, requested)) is not topics.covers(granted, requested)
    assert bool(differing(granted, requested, allow=False)) is not topics.overlaps(granted, requested)


@pytest.mark.parametrize(
    ("granted", "requested", "marked"),
    [
        ("things/weatherstation/S-14/status", "things/weatherstation/S-41/status", [2]),
        ("a/b", "a/b/c", [2]),
        ("a/b/c", "a/b", [2]),
        ("a/b", "a/#", [1]),
        ("a/b/#", "a/+/x", [1]),
        ("#", "$SYS/x", [0]),
        ("x/y", "a/b/c", [0, 1, 2]),
    ],
)
def test_examples(granted, requested, marked):
    assert differing(granted, requested) == marked


def test_both_rows_have_the_same_levels():
    found = compare("a/7", "a/8/x")

    assert found.asked == (Level("a"), Level("8", True), Level("x", True))
    assert found.rule == (Level("a"), Level("7", True), Level("", True, is_there=False))
    assert not found.is_cut


def test_the_longest_topics_are_cut_and_quick():
    started = time.process_time()
    found = compare("a/" * 30_000 + "b", "a/" * 30_000 + "c")
    wide = compare("x" * 60_000, "y" * 60_000)

    assert time.process_time() - started < 0.5
    assert found.is_cut
    assert len(found.asked) == len(found.rule) == SHOWN
    assert len(wide.asked[0].text) == LONGEST
