"""Why something was refused, in a sentence for whoever runs the fleet."""

from __future__ import annotations

from collections.abc import Mapping

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import topics

SENTENCES: Mapping[str, str] = {
    Reason.CREDENTIALS: "The password was right.",
    Reason.GRANT: "A rule allows it.",
    Reason.SUPERUSER: "A superuser may do everything.",
    Reason.SHARED_RESOURCE: "Every known client may use this.",
    Reason.UNKNOWN_CALLER: "A broker asked without a valid token, so nothing was looked up.",
    Reason.MALFORMED: "The broker's request could not be read.",
    Reason.INVALID_USERNAME: "This cannot be a username here.",
    Reason.UNKNOWN_USERNAME: "Nobody has this username.",
    Reason.AMBIGUOUS_IDENTITY: "Two identities share this username; neither may connect until they differ.",
    Reason.DISABLED: "This identity is disabled.",
    Reason.CLIENT_ID: "It may not connect under this client id.",
    Reason.PASSWORD_TOO_LONG: "The password is longer than any that we check.",
    Reason.NO_PASSWORD: "It has no password yet, so it cannot connect.",
    Reason.WRONG_PASSWORD: "The password is wrong.",
    Reason.EXPIRED_PASSWORD: "The password was right once, but is not valid any more.",
    Reason.UNUSABLE_HASH: "The stored password hash cannot be checked; issue a new password.",
    Reason.NOT_SUPERUSER: "It is no superuser; its own rules decide.",
    Reason.MALFORMED_TOPIC: "This is no topic that MQTT allows.",
    Reason.WILDCARD_PUBLISH: "Nobody can publish to a topic with a wildcard.",
    Reason.RESERVED_TOPIC: "This topic controls the broker itself; nobody may use it.",
    Reason.DENY_GRANT: "A rule forbids this.",
    Reason.NO_GRANT: "No rule allows this.",
    Reason.FOREIGN_RESOURCE: "It asked for something of the broker that is not its own.",
}

# How the dialects name the question that a login is; other questions are shown as they are called.
LOGINS = frozenset({"user", "auth", "authn", "register"})


def action(denial: Denial) -> str:
    """What was tried, in the words of MQTT."""
    return "connect" if denial.action in LOGINS else denial.action


def sentence(denial: Denial) -> str:
    """Why *denial* happened; of somebody else's topic it names the owner."""
    known = SENTENCES.get(denial.reason, "Refused.")
    if denial.reason == Reason.DENY_GRANT and denial.rule:
        return f"The rule “{denial.rule}” forbids this."
    if denial.reason != Reason.NO_GRANT:
        return known
    address = topics.parse(denial.topic)
    if address is not None and address.kind.key(address.device_id) != denial.principal:
        return f"This topic belongs to {address.device_id}."
    return known
