"""The reason of a denial, in a sentence for operators of the fleet."""

from __future__ import annotations

from authsvc.core.access import Reason
from authsvc.models import Denial
from authsvc.operation.reasons import SENTENCES
from devicehub.kinds import topics

# The names that dialects give to the question of a login; other questions are shown by their names.
LOGINS = frozenset({"user", "auth", "authn", "register"})


def action(denial: Denial) -> str:
    """Return the denied action in the words of MQTT."""
    if denial.is_rest:
        return denial.summary
    return "connect" if denial.action in LOGINS else denial.action


def sentence(denial: Denial) -> str:
    """Return the reason of *denial* as a sentence; for the topic of another device it names that device."""
    if denial.is_rest:
        whose = "this client" if denial.principal else "unknown names and callers"
        return f"Only the latest refusals of {whose} are listed one by one."
    general = SENTENCES.get(denial.reason, "Refused.")
    if denial.reason == Reason.DENY_GRANT and denial.rule:
        return f"The rule “{denial.rule}” forbids this."
    if denial.reason != Reason.NO_GRANT:
        return general
    address = topics.parse(denial.topic)
    if address is not None and address.kind.key(address.device_id) != denial.principal:
        return f"This topic belongs to {address.device_id}."
    return general
