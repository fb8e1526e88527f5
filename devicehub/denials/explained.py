"""Explanations for a person: of the devices that they may see, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from authsvc.core.access import Action, Reason
from authsvc.models import Denial, Grant
from authsvc.operation.explain import (
    Explanation,
    NotOneIdentity,
    current_rules,
    explain,
    explain_login,
    identities,
    run,
    username_of,
    wire_answers,
)
from authsvc.operation.tried import OWN, Outcome
from authsvc.operation.wire import CONNECT, WireAnswer
from authsvc.text import make_storable
from devicehub import visibility
from devicehub.kinds import topics
from devicehub.models import BaseDevice

LONGEST_NAME = 260
ACTIONS = (CONNECT, *(action.value for action in Action))


def username_for(user: Any, name: str) -> str | None:
    """Return the username of the identity that *name* means to *user*; None if they may see none of that name.

    A user without a limit gets any *name* back, also one that nothing has. Raise NotOneIdentity.
    """
    name = make_storable(name, LONGEST_NAME)
    if visibility.sees_everything(user):
        return run(username_of(name))
    found = run(identities(name))
    mine = {key: own for key, own in found.items() if visibility.device(key, user) is not None}
    if name in mine.values():
        return name
    if len(mine) > 1:
        raise NotOneIdentity(f"{name} names {', '.join(sorted(mine))}: write one of these")
    for key, username in mine.items():
        if not username:
            raise NotOneIdentity(f"{key} has no username and no password: rotate its credentials first")
        return username
    return None


def explain_for(user: Any, name: str, action: str, topic: str, client_id: str) -> Explanation | None:
    """Return the decision on *action*, one of ACTIONS, of *name*; None if *user* may see no such identity.

    An empty *client_id* is not checked. Raise NotOneIdentity.
    """
    username = username_for(user, name)
    return None if username is None else _decide(username, action, topic, client_id)


def explain_device(device: BaseDevice, action: str, topic: str, client_id: str) -> Explanation:
    """Return the decision on *action*, one of ACTIONS, of *device*, as explain_for() does. Raise NotOneIdentity."""
    if not device.mqtt_username:
        raise NotOneIdentity(
            f"{device.device_id} has no username and no password: rotate its credentials first"
        )
    return _decide(device.mqtt_username, action, topic, client_id)


def _decide(username: str, action: str, topic: str, client_id: str) -> Explanation:
    checked = make_storable(client_id) or None
    if action == CONNECT:
        return run(explain_login(username, checked))
    return run(explain(username, Action(action), topic, checked))


def wire_of(found: Explanation) -> list[WireAnswer]:
    """Return the answer to every broker."""
    return run(wire_answers(found))


def sentence(found: Explanation) -> str:
    """Return the reason of a decision; for the topic of another device it names that device."""
    if found.reason == "no_grant" and (owner := owner_of(found.topic, found.principal)):
        return f"This topic belongs to {owner.partition('/')[2]}."
    return found.sentence


def owner_of(topic: str, principal: str) -> str:
    """Return the key of the device whose topic this is, if it is another one than *principal*; otherwise ""."""
    address = topics.parse(topic)
    key = "" if address is None else address.kind.key(address.device_id)
    return "" if key == principal else key


def changed_at(key: str, user: Any) -> datetime | None:
    """Return the last change of the credentials of the device called *key*; None if *user* may not see it."""
    device = visibility.device(key, user) if key else None
    return None if device is None else device.credentials_changed_at


def explain_denials(rows: Iterable[Denial], user: Any) -> dict[int, Explanation]:
    """Return the present decisions on the topics of *rows*, by primary key; a login would need its password.

    Grants are left out for a *user* who may not see them.
    """
    found = run(_explained([row for row in rows if row.action in set(Action) and row.username]))
    if visibility.may(user, visibility.VIEW, Grant):
        return found
    return {pk: _without_grants(explanation) for pk, explanation in found.items()}


async def _explained(rows: list[Denial]) -> dict[int, Explanation]:
    rules = await current_rules()
    return {
        row.pk: await explain(row.username, Action(row.action), row.topic, row.client_id or None, rules=rules)
        for row in rows
    }


def _without_grants(found: Explanation) -> Explanation:
    own = tuple(rule for rule in found.rules if rule.subject == OWN)
    closest = found.closest if found.closest is not None and found.closest.subject == OWN else None
    return replace(found, rules=own, closest=closest, nearest="", rule="")


def rule_label(found: Explanation) -> str:
    """Return the name of the rule that stands below the request, level by level."""
    if found.closest is None:
        return ""
    if found.allowed:
        return "Allowed by" if found.closest.outcome == Outcome.DECIDES else ""
    if found.reason == Reason.DENY_GRANT:
        return "Forbidden by"
    if found.closest.subject != OWN:
        return "Nearest grant"
    return f"May {found.action}" if found.closest.actions == found.action else "Nearest rule"
