"""Why something was refused, in a sentence for whoever runs the fleet."""

from __future__ import annotations

from authsvc.core.access import Reason
from authsvc.models import Denial
from authsvc.operation.reasons import SENTENCES
from devicehub.kinds import topics

# How the dialects name the question that a login is; other questions are shown as they are called.
LOGINS = frozenset({"user", "auth", "authn", "register"})


def action(denial: Denial) -> str:
    """What was tried, in the words of MQTT."""
    if denial.is_rest:
        return denial.summary
    return "connect" if denial.action in LOGINS else denial.action


def sentence(denial: Denial) -> str:
    """Why *denial* happened; of somebody else's topic it names the owner."""
    if denial.is_rest:
        whose = "this client" if denial.principal else "unknown names and callers"
        return f"Only the latest refusals of {whose} are listed one by one."
    known = SENTENCES.get(denial.reason, "Refused.")
    if denial.reason == Reason.DENY_GRANT and denial.rule:
        return f"The rule “{denial.rule}” forbids this."
    if denial.reason != Reason.NO_GRANT:
        return known
    address = topics.parse(denial.topic)
    if address is not None and address.kind.key(address.device_id) != denial.principal:
        return f"This topic belongs to {address.device_id}."
    return known
