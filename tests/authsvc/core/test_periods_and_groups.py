"""Grants with a period, and grants of groups, compared with an oracle that filters a plain list."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.core import authority, passwords
from authsvc.core.access import Action, Client, LoginQuestion, Principal, Secret, TopicQuestion, Verdict
from authsvc.core.authority import Rules
from authsvc.core.grants import ActionSet, Period, Rule
from authsvc.core.memory import MemoryDirectory
from authsvc.dialects import emqx
from authsvc.dialects.base import Options, Request
from rig import naive
from rig.coroutines import result
from rig.emqx_rules import allows
from rig.topic_questions import a_few, legal_filters

pytestmark = pytest.mark.sqlite_only  # Needs no database.

KEY, OTHERS = "pump/P-1", ("pump/P-2", "valve/P-1")
TIMES = range(6)
HASH = passwords.hash_generated("right")


class Row(NamedTuple):
    """One grant as a row of the table."""

    subject: str
    rule: Rule
    begins: int | None
    ends: int | None


times = st.one_of(st.none(), st.sampled_from(TIMES))
subjects = st.sampled_from(
    [
        *("everyone", "type:pump", "type:valve", "group:roof", "group:cellar", "group:other"),
        *(f"key:{key}" for key in (KEY, *OTHERS)),
    ]
)
rules = st.builds(Rule, legal_filters, st.sampled_from(ActionSet), st.booleans())
tables = st.lists(st.builds(Row, subjects, rules, times, times), max_size=6)
groups = st.sets(st.sampled_from(["roof", "cellar"]))


def policy(table: Collection[Row]) -> Rules:
    """Return *table* as the rules that a process loads."""
    always: dict[str, tuple[Rule, ...]] = {}
    periods: dict[str, tuple[Period, ...]] = {}
    for subject, rule, begins, ends in table:
        if begins is None and ends is None:
            always[subject] = (*always.get(subject, ()), rule)
        else:
            periods[subject] = (*periods.get(subject, ()), Period(rule, begins, ends))
    return Rules(always, True, periods)


def expected(table: Collection[Row], own: Collection[str], now: float, action: Action, topic: str) -> bool:
    """Return the decision by a look at every row."""
    subjects = {"everyone", "type:pump", f"key:{KEY}", *(f"group:{group}" for group in own)}
    found = [
        row.rule
        for row in table
        if row.subject in subjects
        and (row.begins is None or row.begins <= now)
        and (row.ends is None or row.ends > now)
        and action.value in row.rule.actions.words
        and naive.matches(row.rule.filter, topic)
    ]
    return bool(found) and all(rule.allow for rule in found)


def pump(**fields) -> Principal:
    """Return the device that asks."""
    fields = {"client_ids": ("p",), "attributes": {"type": "pump"}, **fields}
    return Principal(KEY, "p", (Secret(HASH),), **fields)


def decide(
    rules: Rules, own: Collection[str], now: float, question=None, principal: Principal | None = None
) -> Verdict:
    """Return the verdict on *question* at *now* for a device in the groups *own*."""
    directory = MemoryDirectory([principal or pump()], {KEY: own, OTHERS[0]: ["other"]})
    question = question or TopicQuestion(Client("p", "p"), Action.PUBLISH, ["a"])
    return result(authority.decide(question, rules, directory, lambda: now))


@a_few
@given(
    table=tables,
    own=groups,
    topic=st.sampled_from(naive.topics(("a", "b", "$SYS"), 3)),
    action=st.sampled_from([Action.PUBLISH, Action.RECEIVE]),
    now=st.sampled_from([time + part for time in TIMES for part in (0, 0.5)]),
)
def test_a_verdict_is_that_of_the_rows_in_force_until_it_says(table, own, topic, action, now):
    question = TopicQuestion(Client("p", "p"), action, [topic])
    verdict = decide(policy(table), own, now, question)

    until = verdict.until
    assert until is None or until > now
    for moment in (now, *(time + part for time in TIMES for part in (0, 0.5))):
        if now <= moment < (until or 99):
            assert verdict.allowed is expected(table, own, moment, action, topic)


@a_few
@given(
    table=tables,
    own=groups,
    topic=st.sampled_from(naive.topics(("a", "b"), 2)),
    now=st.sampled_from([1000 * time + part for time in TIMES for part in (0, 0.5, 500, 998.9, 999)]),
)
def test_rules_that_emqx_holds_are_those_in_force_until_they_expire(
    monkeypatched_time, table, own, topic, now
):
    """EMQX ends the connection at `expire_at`, and gets no rules shortly before a period turns."""
    stretched = [
        row._replace(
            begins=None if row.begins is None else 1000 * row.begins,
            ends=None if row.ends is None else 1000 * row.ends,
        )
        for row in table
    ]
    question = LoginQuestion(Client("p", "p"), "right", wants_rules=True)
    monkeypatched_time(now)
    verdict = decide(policy(stretched), own, now, question)
    reply = emqx.render(Request("POST", question="authn", options=Options(emqx_rules_ttl=3600)), verdict)

    answer = json.loads(reply.body)
    assert "acl" in answer or "expire_at" not in answer
    if "acl" in answer:
        assert now < answer["expire_at"] <= now + 3600
        assert reply.until is not None
        assert now < reply.until
        for moment in (now, answer["expire_at"] - 0.001):
            assert allows(answer["acl"], "publish", topic) is expected(
                stretched, own, moment, Action.PUBLISH, topic
            )


@pytest.fixture(scope="module")
def monkeypatched_time():
    with pytest.MonkeyPatch.context() as patch:
        yield lambda now: patch.setattr(emqx.time, "time", lambda: now)


def test_a_period_includes_its_beginning_and_excludes_its_end():
    rules = policy([Row("everyone", Rule("a"), 10, 20)])

    assert [decide(rules, (), now).allowed for now in (9.999, 10, 19.999, 20)] == [False, True, True, False]
    assert [decide(rules, (), now).until for now in (9, 10, 20)] == [10, 20, None]


def test_a_question_without_periods_and_groups_reads_neither():
    class Alone:
        """A directory as other projects have it: without groups."""

        async def lookup(self, username):
            return pump()

        async def claimants(self, client_id):
            return {KEY}

    def no_clock():
        raise AssertionError("the clock was read")

    plain = policy([Row("everyone", Rule("a"), None, None)])
    question = TopicQuestion(Client("p", "p"), Action.PUBLISH, ["a"])
    verdict = result(authority.decide(question, plain, Alone(), no_clock))
    assert (verdict.allowed, verdict.groups, verdict.until) == (True, None, None)

    grouped = policy([Row("everyone", Rule("a"), None, None), Row("group:roof", Rule("b"), None, None)])
    verdict = result(authority.decide(question, grouped, Alone(), no_clock))
    assert (verdict.allowed, verdict.groups) == (True, frozenset())
    assert plain.has_groups is False


def test_a_period_of_another_subject_does_not_shorten_an_answer():
    rules = policy([Row("key:pump/P-2", Rule("a"), 5, None), Row("everyone", Rule("a"), None, None)])

    assert decide(rules, (), 1).until is None


def test_a_superuser_has_no_rules_that_could_turn():
    rules = policy([Row("group:roof", Rule("a", allow=False), 5, None)])

    verdict = decide(rules, ["roof"], 6, principal=pump(superuser=True))
    assert (verdict.allowed, verdict.groups, verdict.until) == (True, None, None)
