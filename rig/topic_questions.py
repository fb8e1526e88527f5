"""Questions about topics, decided without an entrance, and strategies for filters, shares and hostile text."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from authsvc.core import authority
from authsvc.core.access import Action, Client, Decision, Principal, TopicQuestion
from authsvc.core.grants import ActionSet, Rule
from authsvc.core.memory import MemoryDirectory
from rig import naive
from rig.coroutines import result
from rig.examples import examples

FILTERS = naive.filters(naive.LITERALS, 3)
DEPTH = naive.enough(FILTERS)
TOPICS = naive.topics(naive.ALPHABET, DEPTH)
NON_CHARACTERS = [
    *map(chr, range(0xFDD0, 0xFDF0)),
    *(chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFE, 0xFFFF)),
]
QUICK = 0.05  # seconds of processor time, for the longest text that MQTT can carry

a_few = settings(max_examples=examples(50), deadline=None)
many = settings(max_examples=examples(100), deadline=None)

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
# Every code point, halves of characters too, and often a meaningful one.
hostile_characters = st.one_of(
    st.sampled_from("/+#$a{}"),
    st.sampled_from(["\x00", "\x1f", "\n", "\x7f", "\x9f", "\xa0", "\ud800", "\udfff", "\ufffd", "\ufffe"]),
    st.sampled_from(NON_CHARACTERS),
    st.characters(exclude_categories=()),
)
# st.text() is not used: it makes one character set of the alphabet, in which the meaningful characters are rare.
hostile_text = st.lists(hostile_characters, max_size=12).map("".join)


def somebody(*held: Rule, superuser: bool = False) -> Principal:
    """Return a principal with the rules *held*."""
    return Principal(
        "account/somebody", "somebody", superuser=superuser, client_ids=("somebody",), grants=held
    )


def ask(principal: Principal, action: Action, topic: str, client_id: str | None = None) -> Decision:
    """Return the decision about one topic, as a broker asks for it."""
    question = TopicQuestion(Client(principal.username, client_id), action, [topic])
    verdict = result(
        authority.decide(question, authority.Rules(), MemoryDirectory([principal]), clock=lambda: 0.0)
    )
    assert verdict.principal is principal
    (decision,) = verdict.decisions
    assert decision.topic == topic
    assert verdict.allowed is decision.allowed
    return decision
