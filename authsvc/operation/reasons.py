"""A sentence for each reason, for operators. docs/reference/reasons.md documents the codes."""

from __future__ import annotations

from collections.abc import Mapping

from authsvc.core.access import Reason

SENTENCES: Mapping[str, str] = {
    Reason.CREDENTIALS: "The password was right.",
    Reason.GRANT: "A rule allows it.",
    Reason.SUPERUSER: "A superuser may do everything.",
    Reason.SHARED_RESOURCE: "Every client of an existing identity may use this.",
    Reason.UNKNOWN_CALLER: "A broker asked without a valid token, so nothing was looked up.",
    Reason.MALFORMED: "The broker's request could not be read.",
    Reason.INVALID_USERNAME: "This cannot be a username here.",
    Reason.UNKNOWN_USERNAME: "There is no identity with this username.",
    Reason.AMBIGUOUS_IDENTITY: "Two identities share this username; neither may connect until they differ.",
    Reason.DISABLED: "This identity is disabled.",
    Reason.REVOKED: "Its credentials were revoked and it has no new ones.",
    Reason.CLIENT_ID: "It may not connect under this client id.",
    Reason.AMBIGUOUS_CLIENT_ID: "Two identities share this client id; neither may use it until they differ.",
    Reason.PASSWORD_TOO_LONG: "The password is too long to be checked.",
    Reason.NO_PASSWORD: "It has no password, so it cannot connect.",
    Reason.WRONG_PASSWORD: "The password is wrong.",
    Reason.EXPIRED_PASSWORD: "The password was right, but has expired.",
    Reason.UNUSABLE_HASH: "The stored password hash cannot be checked; issue a new password.",
    Reason.INVALID_TOKEN: "The token was not issued here.",
    Reason.EXPIRED_TOKEN: "The token has expired; get a new one.",
    Reason.REVOKED_TOKEN: "The credentials changed since the token was issued; get a new one.",
    Reason.NOT_SUPERUSER: "It is not a superuser; its own rules decide.",
    Reason.MALFORMED_TOPIC: "MQTT does not allow this topic.",
    Reason.WILDCARD_PUBLISH: "A topic with a wildcard cannot be published to.",
    Reason.RESERVED_TOPIC: "This topic controls the broker itself; no client may use it.",
    Reason.DENY_GRANT: "A rule forbids this.",
    Reason.NO_GRANT: "No rule allows this.",
    Reason.FOREIGN_RESOURCE: "This resource of the broker belongs to others.",
}
