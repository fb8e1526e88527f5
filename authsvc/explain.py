"""Why is this allowed or denied? The same decision as on the path, with what an operator wants to know."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from authsvc import directory, policy
from authsvc.core import authority, topics
from authsvc.core.access import Action, Client, Principal, Reason, TopicQuestion
from authsvc.core.authority import Rules
from authsvc.core.grants import Grant
from authsvc.reasons import SENTENCES


@dataclass(frozen=True)
class Explanation:
    """A decision for people and programs. *nearest* is the rule that comes closest, where none allowed it."""

    username: str
    action: str
    topic: str
    client_id: str | None
    allowed: bool
    reason: str
    sentence: str
    rule: str
    principal: str
    nearest: str
    client_ids: tuple[str, ...] | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def explain(username: str, action: Action, topic: str, client_id: str | None = None) -> Explanation:
    """Decide and say why. Without *client_id* its binding is not judged. Raises what the database raises."""
    rules = (await policy.current()).rules
    client = Client(username, client_id)
    question = TopicQuestion(client, action, [topic])
    verdict = await authority.decide(question, rules, directory.configured())
    decision, principal = verdict.decisions[0], verdict.principal
    nearest = ""
    if principal is not None and decision.reason is Reason.NO_GRANT:
        nearest = _nearest(principal, client, rules, action, topic)
    return Explanation(
        username=username,
        action=action.value,
        topic=topic,
        client_id=client_id,
        allowed=decision.allowed,
        reason=decision.reason.value,
        sentence=SENTENCES[decision.reason],
        rule=decision.rule,
        principal=principal.key if principal else "",
        nearest=nearest,
        client_ids=principal.client_ids if principal else (),
    )


def _nearest(principal: Principal, client: Client, rules: Rules, action: Action, topic: str) -> str:
    """The allow rule that shares the most with what was asked: its filter, then its action."""
    wanted = topics.inner_filter(topic) or topic
    candidates = [grant for grant in authority.filled(principal, client, rules) if grant.allow]
    if not candidates:
        return ""
    best = max(candidates, key=lambda grant: _closeness(grant, action, wanted))
    return f"{best.name}: {best.actions.value} {best.filter}"


def _closeness(grant: Grant, action: Action, wanted: str) -> tuple[int, int, int]:
    levels, asked = grant.filter.split("/"), wanted.split("/")
    same = sum(one in ("+", other) for one, other in zip(levels, asked, strict=False))
    covered = topics.covers(grant.filter, wanted) or topics.overlaps(grant.filter, wanted)
    return (int(covered), same - abs(len(levels) - len(asked)), int(grant.speaks_of(action)))
