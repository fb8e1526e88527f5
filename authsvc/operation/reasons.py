"""Each reason in a sentence for whoever runs the fleet. The codes are documented in docs/reference/reasons.md."""

from __future__ import annotations

from collections.abc import Mapping

from authsvc.core.access import Reason

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
    Reason.REVOKED: "Its credentials were revoked and it has no new ones.",
    Reason.CLIENT_ID: "It may not connect under this client id.",
    Reason.AMBIGUOUS_CLIENT_ID: "Two identities share this client id; nobody may use it until they differ.",
    Reason.PASSWORD_TOO_LONG: "The password is longer than any that we check.",
    Reason.NO_PASSWORD: "It has no password yet, so it cannot connect.",
    Reason.WRONG_PASSWORD: "The password is wrong.",
    Reason.EXPIRED_PASSWORD: "The password was right once, but is not valid any more.",
    Reason.UNUSABLE_HASH: "The stored password hash cannot be checked; issue a new password.",
    Reason.INVALID_TOKEN: "The token is not one that was issued here.",
    Reason.EXPIRED_TOKEN: "The time of the token is over; get a new one.",
    Reason.REVOKED_TOKEN: "The credentials changed since the token was issued; get a new one.",
    Reason.NOT_SUPERUSER: "It is no superuser; its own rules decide.",
    Reason.MALFORMED_TOPIC: "This is no topic that MQTT allows.",
    Reason.WILDCARD_PUBLISH: "Nobody can publish to a topic with a wildcard.",
    Reason.RESERVED_TOPIC: "This topic controls the broker itself; nobody may use it.",
    Reason.DENY_GRANT: "A rule forbids this.",
    Reason.NO_GRANT: "No rule allows this.",
    Reason.FOREIGN_RESOURCE: "It asked for something of the broker that is not its own.",
}
