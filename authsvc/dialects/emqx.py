"""EMQX 5 and 6, HTTP authenticator and HTTP authorizer.

Only a 200 with the result `deny` is a deny. For any other status EMQX asks its next source, and after the last one
applies `no_match`, which was allow until 6.0. The operator configures the names of fields, as in the how-to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from authsvc.core import topics
from authsvc.core.access import (
    Action,
    LoginQuestion,
    MalformedRequest,
    TopicQuestion,
    Verdict,
)
from authsvc.core.grants import Rule
from authsvc.dialects.base import Dialect, Reply, Request, json_reply

ACTIONS = {"publish": Action.PUBLISH, "subscribe": Action.SUBSCRIBE}
ACCESS = {"1": Action.SUBSCRIBE, "2": Action.PUBLISH}  # EMQX 5.7.1. The numbers of mosquitto differ.

ALLOWED = json_reply(200, {"result": "allow"})
DENIED = json_reply(200, {"result": "deny"})
UNAVAILABLE = json_reply(503, {"result": "ignore"})
# `#` and `+` do not match topics that begin with `$`, so `$SYS/#` is listed too.
NOTHING_ELSE: dict[str, object] = {"permission": "deny", "action": "all", "topics": ["#", "$SYS/#"]}


def parse_authn(request: Request) -> LoginQuestion:
    """Parse a login. All values are texts; an absent one is an empty text, which is never a valid password."""
    fields = request.fields
    return LoginQuestion(fields.client("clientid"), fields.text("password"), wants_rules=True)


def parse_authz(request: Request) -> TopicQuestion:
    """Parse the word `action` or the number `access` of older templates; if both are there they must agree."""
    fields = request.fields
    formats = (("action", ACTIONS), ("access", ACCESS))
    actions = {words.get(fields.text(name)) for name, words in formats if name in fields}
    action = actions.pop() if len(actions) == 1 else None
    if action is None:
        raise MalformedRequest("action is not publish or subscribe, and access is not 1 or 2")
    return TopicQuestion(fields.client("clientid"), action, [fields.text("topic")])


def render(request: Request, verdict: Verdict) -> Reply:
    if not verdict.allowed:
        return DENIED
    if request.question == "authz":
        return ALLOWED
    principal = verdict.principal
    answer: dict[str, object] = {
        "result": "allow",
        "is_superuser": principal is not None and principal.superuser,
    }
    if principal is not None and (attributes := {k: v for k, v in principal.attributes.items() if v}):
        answer["client_attrs"] = attributes
    until = None
    ends = [int(verdict.secret.valid_until)] if verdict.secret and verdict.secret.valid_until else []
    now = time.time()
    # Without a rule to cache EMQX asks about each topic, and each answer is a deny.
    if verdict.rules is not None and not _turns_soon(verdict, now) and (acl := expressed(verdict.rules)):
        answer["acl"] = acl
        end, until = end_of_rules(now, request.options.emqx_rules_ttl)
        ends.append(end)
        if verdict.until is not None:
            ends.append(int(verdict.until))
            until = min(until, int(verdict.until) - 1)
    if ends:  # Left out instead of null, which EMQX treats as a wrong value and denies.
        answer["expire_at"] = min(ends)
    return json_reply(200, answer, until)


def _turns_soon(verdict: Verdict, now: float) -> bool:
    """Return whether a period of a rule begins or ends within about a second.

    EMQX holds rules until a whole second. Shortly before that it gets none, and asks about each topic.
    """
    return verdict.until is not None and now >= int(verdict.until) - 1


def end_of_rules(now: float, ttl: int) -> tuple[int, int]:
    """Return the expiry of rules that EMQX may cache for *ttl* seconds, and the time until which it is the same.

    Expiries are whole minutes, so that logins within a minute have the same answer, which is cached. For a *ttl*
    below two minutes they are multiples of half of it.

    >>> end_of_rules(1_000_000_030.5, 3_600), end_of_rules(1_000_000_030.5, 10)
    ((1000003620, 1000000080), (1000000040, 1000000035))
    """
    step = min(60, max(1, ttl // 2))
    end = int(now + ttl) // step * step
    return end, end + step - ttl


def fault(request: Request) -> Reply:
    """Return a 503 for authn. For authz return a deny: any status except 200 would end in `no_match`."""
    return DENIED if request.question == "authz" else UNAVAILABLE


def expressed(rules: Sequence[Rule]) -> list[dict[str, object]] | None:
    """Return *rules* as the `acl` of EMQX, or None if its first-match evaluation would decide otherwise.

    EMQX compares the levels of a subscription with a rule as if they were plain text, so a subscribe rule with a
    wildcard allows filters that cover more than the rule. Exact topics, marked `eq`, do not.
    """
    # The authority refuses $CONTROL whatever is granted.
    rules = [rule for rule in rules if not (rule.allow and topics.is_control(rule.filter))]
    publish_denials = [rule for rule in rules if not rule.allow and rule.applies_to(Action.PUBLISH)]
    subscribe_denials = [rule for rule in rules if not rule.allow and rule.applies_to(Action.SUBSCRIBE)]
    publish = [rule.filter for rule in rules if rule.allow and rule.applies_to(Action.PUBLISH)]
    subscribe = [rule.filter for rule in rules if rule.allow and rule.applies_to(Action.SUBSCRIBE)]
    filters = [rule.filter for rule in rules]
    if any("${" in text or text.startswith("eq ") for text in filters):
        return None  # EMQX would fill `${` as a placeholder and cut off `eq `.
    if any(topics.has_wildcard(text) for text in subscribe):
        return None
    acl: list[dict[str, object]] = []
    if publish_denials:
        denied = [_publish_topic(rule.filter) for rule in publish_denials]
        acl.append({"permission": "deny", "action": "publish", "topics": denied})
    if publish:
        acl.append(
            {"permission": "allow", "action": "publish", "topics": [_publish_topic(t) for t in publish]}
        )
    kept = [t for t in subscribe if not any(topics.overlaps(rule.filter, t) for rule in subscribe_denials)]
    if kept:
        acl.append({"permission": "allow", "action": "subscribe", "topics": [f"eq {t}" for t in kept]})
    acl.append(NOTHING_ELSE)
    return acl


def _publish_topic(text: str) -> str:
    return text if topics.has_wildcard(text) else f"eq {text}"


DIALECT = Dialect("emqx", {"authn": parse_authn, "authz": parse_authz}, render, fault, "authn")
