"""The rules of a principal beside one request: which one decided, and why the others did not. It decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from authsvc.core import grants, levels, topics
from authsvc.core.access import Action, Client, Decision, Principal
from authsvc.core.authority import Rules
from authsvc.core.grants import ActionSet, Period, Rule
from authsvc.core.levels import Comparison, cut
from authsvc.text import in_utc

OWN = "own topics"
MAX_RULES = 200  # Rules in one explanation.


class Outcome(StrEnum):
    """The result of one rule."""

    DECIDES = "decides"
    FITS = "fits"  # Another rule decided.
    OTHER_ACTION = "other_action"
    DIFFERS = "differs"
    UNFILLED = "unfilled"
    NOT_NOW = "not_now"


@dataclass(frozen=True)
class TriedRule:
    """A rule that applies to a principal, with its outcome for one request.

    *template* is the filter as it was written, *filter* has its placeholders filled. *subject* is `own topics`, or
    that of the grant.
    """

    name: str
    subject: str
    allow: bool
    actions: ActionSet
    template: str
    filter: str
    outcome: Outcome
    sentence: str
    comparison: Comparison | None = None

    @property
    def summary(self) -> str:
        """The rule in one line: `own data: publish things/weatherstation/STATION-001/data`."""
        period = f" ({self.sentence})" if self.outcome is Outcome.NOT_NOW else ""
        return f"{self.name}: {self.actions.sentence} {self.filter}{period}"


@dataclass(frozen=True)
class Tried:
    """All rules that apply to a principal, and the one to show: that which decided, or else the nearest allow."""

    rules: tuple[TriedRule, ...] = ()
    left_out: int = 0
    closest: TriedRule | None = None


def try_rules(
    principal: Principal,
    client: Client,
    rules: Rules,
    action: Action,
    topic: str,
    decision: Decision,
    groups: Collection[str] = (),
    now: float = 0.0,
) -> Tried:
    """Return the rules of *principal*, a member of *groups*, beside a request on which *decision* was made at *now*."""
    wanted = (topics.inner_filter(topic) if action is Action.SUBSCRIBE else None) or topic
    found = [
        _tried(period.rule, subject, text, action, wanted, decision)
        if period.holds(now) or text is None
        else _waiting(period, subject, text, wanted, now)
        for period, subject, text in _held(principal, client, rules, groups)
    ]
    deciding = next((rule for rule in found if rule.outcome is Outcome.DECIDES), None)
    allows = [rule for rule in found if rule.allow and rule.outcome is not Outcome.UNFILLED]
    nearest = max(allows, key=lambda rule: _closeness(rule, action, wanted), default=None)
    closest = deciding or nearest
    return Tried(
        tuple(_compared(rule, wanted) for rule in found[:MAX_RULES]),
        max(0, len(found) - MAX_RULES),
        None if closest is None else _compared(closest, wanted),
    )


def _compared(rule: TriedRule, wanted: str) -> TriedRule:
    """Return *rule* with its levels, which are compared for the rules that are shown only."""
    if rule.outcome is Outcome.UNFILLED:
        return rule
    return replace(rule, comparison=levels.compare(rule.filter, wanted, rule.allow))


def _held(
    principal: Principal, client: Client, rules: Rules, groups: Collection[str]
) -> Iterator[tuple[Period, str, str | None]]:
    """Yield each rule of *principal* with its subject and its filled filter, which is None if a value is missing."""
    values = {**principal.attributes, "username": principal.username, "client_id": client.client_id or ""}
    own = ((OWN, Period(rule)) for rule in principal.grants)
    for subject, period in (*own, *rules.every(principal, groups)):
        yield period, subject, grants.fill(period.rule.filter, values)


def _waiting(period: Period, subject: str, text: str, wanted: str, now: float) -> TriedRule:
    """Return a rule outside its period."""
    rule = period.rule
    begins = period.begins if period.begins is not None and period.begins > now else None
    moment = datetime.fromtimestamp(begins or period.ends or 0, UTC)
    sentence = f"{'Not in force until' if begins else 'Its period ended at'} {in_utc(moment)}."
    return TriedRule(
        rule.name,
        subject,
        rule.allow,
        rule.actions,
        rule.filter,
        text,
        Outcome.NOT_NOW,
        sentence,
    )


def _tried(
    rule: Rule, subject: str, text: str | None, action: Action, wanted: str, decision: Decision
) -> TriedRule:
    if text is None:
        outcome, sentence = Outcome.UNFILLED, "A placeholder of it has no value here."
    elif not rule.applies_to(action):
        outcome, sentence = Outcome.OTHER_ACTION, f"It is for {rule.actions.sentence} only."
    else:
        outcome, sentence = _fit(rule, text, wanted, decision)
    filled = text or rule.filter
    return TriedRule(rule.name, subject, rule.allow, rule.actions, rule.filter, filled, outcome, sentence)


def _fit(rule: Rule, text: str, wanted: str, decision: Decision) -> tuple[Outcome, str]:
    positions = levels.differing(text, wanted, rule.allow)
    if positions:
        return Outcome.DIFFERS, _difference(text.split("/"), wanted.split("/"), positions[0])
    if rule.allow is decision.allowed and rule.name == decision.rule:
        return Outcome.DECIDES, "It covers this." if rule.allow else "It overlaps this, and a deny wins."
    if rule.allow:
        return Outcome.FITS, "It covers this too." if decision.allowed else "It covers this, but a deny wins."
    return Outcome.FITS, "It overlaps this too."


def _difference(ours: list[str], theirs: list[str], position: int) -> str:
    level = f"Level {position + 1}"
    if position >= len(ours):
        return f"It ends before level {position + 1}."
    if position >= len(theirs):
        return f"It goes on with {cut(ours[position])} where the request ends."
    return f"{level} is {cut(ours[position]) or 'empty'}, not {cut(theirs[position]) or 'empty'}."


def _closeness(rule: TriedRule, action: Action, wanted: str) -> tuple[int, int, int]:
    """Return how similar *rule* is to the request, first by its filter, then by its action."""
    ours, requested = rule.filter.split("/"), wanted.split("/")
    same = sum(one in ("+", other) for one, other in zip(ours, requested, strict=False))
    touches = topics.overlaps(rule.filter, wanted)
    fits_action = action.value in rule.actions.words
    return (int(touches), same - abs(len(ours) - len(requested)), int(fits_action))
