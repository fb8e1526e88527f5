"""The rules that EMQX gets with a login: they decide as the authorizer would."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authsvc.core import authority, passwords
from authsvc.core.access import Action, Client, LoginQuestion, Principal, Secret, TopicQuestion
from authsvc.core.grants import ActionSet, Rule
from authsvc.core.memory import MemoryDirectory
from authsvc.dialects import emqx
from authsvc.dialects.base import Options, Request
from rig import emqx_rules
from rig.coroutines import result
from rig.examples import examples
from rig.questions import good

pytestmark = pytest.mark.sqlite_first  # Its questions send the SQL of test_cases.py.

# ---------------------------------------------------------------- EMQX: rules in the connect answer

LEVELS = ["a", "b", "", "$SYS", "device", "eq x", "${username}"]
plain_topics = (
    st.lists(st.sampled_from([*LEVELS, "$CONTROL"]), min_size=1, max_size=3).map("/".join).filter(bool)
)
topic_filters = st.tuples(
    st.lists(st.sampled_from([*LEVELS, "+"]), max_size=3), st.sampled_from([[], [], ["#"]])
).map(lambda parts: "/".join(parts[0] + parts[1]))
grants = st.lists(
    st.builds(
        Rule,
        topic_filters.filter(bool),
        st.sampled_from(ActionSet),
        st.sampled_from([True, True, False]),
        st.just("one"),
    ),
    max_size=5,
)
HASH = passwords.hash_generated("right")


def connect_answer(held, operators=()):
    """Return the connect answer for a principal with the grants *held*."""
    principal = Principal(
        "account/device", "device", (Secret(HASH),), client_ids=("device",), grants=tuple(held)
    )
    rules = authority.Rules({"everyone": tuple(operators)} if operators else {})
    directory = MemoryDirectory([principal])
    client = Client("device", "device")
    verdict = result(authority.decide(LoginQuestion(client, "right", wants_rules=True), rules, directory))
    reply = emqx.render(Request("POST", question="authn", options=Options(emqx_rules_ttl=60)), verdict)

    def authorizer(action, topic):
        question = TopicQuestion(client, Action(action), [topic])
        return result(authority.decide(question, rules, directory)).allowed

    return json.loads(reply.body), authorizer


@settings(deadline=None, max_examples=examples(80), database=None)
@given(
    held=grants,
    operators=grants,
    topics=st.lists(plain_topics, min_size=1, max_size=6),
    filters=st.lists(topic_filters.filter(bool), min_size=1, max_size=4),
)
@example(
    held=[Rule("a/#", ActionSet.PUBLISH)],
    operators=[Rule("a/b", allow=False)],
    topics=["a/b", "a"],
    filters=["a"],
)
@example(
    held=[Rule("a/b", ActionSet.SUBSCRIBE)],
    operators=[Rule("a/#", allow=False)],
    topics=["a/b"],
    filters=["a/b"],
)
def test_rules_decide_as_the_authorizer_would(held, operators, topics, filters):
    """With cached rules a client may do exactly the same as if EMQX asked each time."""
    answer, authorizer = connect_answer(held, operators)

    assert answer["result"] == "allow"
    if "acl" not in answer:
        return
    for topic in [
        *topics,
        *(grant.filter for grant in held if "+" not in grant.filter and "#" not in grant.filter),
    ]:
        assert emqx_rules.allows(answer["acl"], "publish", topic) == authorizer("publish", topic), topic
    for text in [*filters, *topics, *(grant.filter for grant in held)]:
        assert emqx_rules.allows(answer["acl"], "subscribe", text) == authorizer("subscribe", text), text


@settings(deadline=None, max_examples=examples(50), database=None)
@given(held=grants)
def test_rules_are_well_formed_or_left_out(held):
    """EMQX refuses the login for one invalid rule, a null or an `expire_at` in the past."""
    answer, _ = connect_answer(held)

    assert None not in answer.values()
    assert answer.keys() <= {"result", "is_superuser", "acl", "expire_at"}
    assert ("acl" in answer) == ("expire_at" in answer)
    if "acl" in answer:
        assert type(answer["expire_at"]) is int
        assert 0 < answer["expire_at"] - time.time() < 70
        assert answer["acl"][-1] == {"permission": "deny", "action": "all", "topics": ["#", "$SYS/#"]}
        for rule in answer["acl"]:
            assert rule["permission"] in ("allow", "deny")
            assert rule["action"] in ("publish", "subscribe", "all")
            assert all(type(topic) is str and "${" not in topic for topic in rule["topics"])


@pytest.mark.parametrize(
    "inexpressible",
    [
        Rule("a/+", ActionSet.SUBSCRIBE),
        Rule("a/#", ActionSet.ALL),
        Rule("#"),
        Rule("eq a", ActionSet.PUBLISH),
        Rule("a/${b", ActionSet.PUBLISH),
        Rule("a/${b", ActionSet.SUBSCRIBE, allow=False),
    ],
    ids=lambda grant: grant.filter,
)
def test_rules_that_emqx_would_read_otherwise_are_left_out(inexpressible):
    answer, _ = connect_answer([Rule("a/b"), inexpressible])

    assert answer == {"result": "allow", "is_superuser": False}


@pytest.mark.parametrize("text", ["$CONTROL/dynamic-security/v1", "$CONTROL/#", "$CONTROL/+", "$CONTROL"])
@pytest.mark.parametrize("actions", [ActionSet.ALL, ActionSet.PUBLISH, ActionSet.SUBSCRIBE])
def test_no_rule_opens_the_brokers_own_topics(text, actions):
    """Grant.clean refuses such a grant, create() and SQL do not. The authorizer refuses the topic to all clients."""
    answer, authorizer = connect_answer([Rule("a"), Rule(text, actions)])

    for action, topic in itertools.product(("publish", "subscribe"), (text, "$CONTROL/dynamic-security/v1")):
        assert not authorizer(action, topic)
        assert "acl" not in answer or not emqx_rules.allows(answer["acl"], action, topic)


def test_a_superuser_gets_no_rules(question, root):
    reply = question("emqx/authn", good("emqx/authn", root))

    assert json.loads(reply.body) == {"result": "allow", "is_superuser": True}


def test_a_device_gets_exactly_its_own_rules(question, station):
    acl = json.loads(question("emqx/authn", good("emqx/authn", station)).body)["acl"]

    for about in ("data", "status", "reply"):
        assert emqx_rules.allows(acl, "publish", station.topic(about))
        assert not emqx_rules.allows(acl, "subscribe", station.topic(about))
    assert emqx_rules.allows(acl, "subscribe", station.topic("cmd"))
    for text in (
        "#",
        "+/+/+/cmd",
        "things/weatherstation/+/cmd",
        station.topic("#"),
        station.topic("+"),
        "$SYS/#",
    ):
        assert not emqx_rules.allows(acl, "subscribe", text)
        assert not emqx_rules.allows(acl, "publish", text)
