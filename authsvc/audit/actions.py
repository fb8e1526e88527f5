"""The words for actions in the audit, with their labels on pages. Other apps add theirs in `AppConfig.ready()`."""

from __future__ import annotations

from authsvc.errors import AuthsvcError

LONGEST = 40  # characters, as the column has


class UnknownAction(AuthsvcError, ValueError):
    """The word for an action was not registered."""


# Each of these issues, ends or reveals credentials of the object itself.
OF_CREDENTIALS = (
    "account_created",
    "api_key_rolled_back",
    "api_key_rotated",
    "credentials_imported",
    "credentials_revoked",
    "device_created",
    "password_chosen",
    "password_rolled_back",
    "password_rotated",
)

OTHER = "Other"
# The labels of actions by their words, in groups as pages offer them.
_groups: dict[str, dict[str, str]] = {
    "Credentials": {
        "credentials_shown": "Credentials shown",
        "token_issued": "Token issued",
        "password_rotated": "Password rotated",
        "password_chosen": "Password chosen",
        "overlap_ended": "Previous password ended",
        "previous_replaced": "Previous password replaced by one in use",
        "password_rolled_back": "Password rolled back",
        "api_key_rotated": "API key rotated",
        "api_key_rolled_back": "API key rolled back",
        "credentials_revoked": "Credentials revoked",
        "credentials_imported": "Credentials imported",
        "expiry_set": "Expiry set",
    },
    "Many at once": {
        "import_started": "Import of devices started",
        "rotation_started": "Rotation started",
        "rotation_finished": "Rotation finished",
        "rotation_rolled_back": "Rotation rolled back",
    },
    "Devices": {
        "device_created": "Device created",
        "device_changed": "Device changed",
        "device_disabled": "Device disabled",
        "device_enabled": "Device enabled",
        "device_moved": "Device moved",
        "removal_requested": "Removal requested",
        "device_removed": "Device removed",
        "device_erased": "Device erased",
    },
    "Grants and groups": {
        "grant_created": "Grant created",
        "grant_changed": "Grant changed",
        "grant_deleted": "Grant deleted",
        "group_created": "Device group created",
        "group_changed": "Device group changed",
        "group_deleted": "Device group deleted",
    },
    "Brokers": {
        "broker_created": "Broker created",
        "broker_changed": "Broker changed",
        "broker_deleted": "Broker deleted",
        "token_rotated": "Broker token rotated",
        "token_revoked": "Broker tokens revoked",
        "previous_token_ended": "Previous broker token ended",
    },
    "Accounts": {
        "account_created": "Account created",
        "account_changed": "Account changed",
        "account_deleted": "Account deleted",
    },
    "People": {
        "user_created": "User created",
        "user_changed": "User changed",
        "user_deleted": "User deleted",
        "user_password_changed": "Password of a user changed",
        "user_password_reset": "Password of a user reset by mail",
        "sessions_ended": "Other sessions of a user ended",
        "second_factor_added": "Second factor added",
        "second_factor_removed": "Second factor removed",
        "backup_codes_renewed": "Backup codes renewed",
        "role_created": "Role created",
        "role_changed": "Role changed",
        "role_deleted": "Role deleted",
        "sites_changed": "Sites of a user changed",
        "program_key_created": "API key of a program created",
        "program_key_deleted": "API key of a program deleted",
    },
    "Data and commands": {
        "command_sent": "Command sent",
        "command_cancelled": "Command cancelled",
        "quarantine_replayed": "Quarantine replayed",
        "quarantine_dismissed": "Quarantine dismissed",
        "denial_dismissed": "Denial dismissed",
        "audit_retention_changed": "Audit retention changed",
    },
}
_labels = {word: text for actions in _groups.values() for word, text in actions.items()}


def register(word: str, text: str, group: str = OTHER) -> None:
    """Add the action *word*, which pages show as *text* in *group*. Raise ValueError for a word that is taken."""
    if not word or len(word) > LONGEST or _labels.get(word, text) != text:
        raise ValueError(f"{word!r} is taken, empty or longer than {LONGEST} characters")
    if word not in _labels:
        _labels[word] = _groups.setdefault(group, {})[word] = text


def label(word: str) -> str:
    """Return the text of *word* for people; an entry may be older than its app, so any word has one."""
    return _labels.get(word, word.replace("_", " ").capitalize())


def labels() -> dict[str, str]:
    """Return the labels of all actions by their words."""
    return dict(_labels)


def groups() -> dict[str, dict[str, str]]:
    """Return the labels of all actions by their words, by the group in which pages offer them."""
    return {name: dict(actions) for name, actions in _groups.items()}


def check(word: str) -> None:
    """Raise UnknownAction unless *word* is registered."""
    if word not in _labels:
        raise UnknownAction(f"{word!r} is not an action of the audit; register() adds one")
