"""Actions on identities: create devices and accounts with their credentials, issue new ones, revoke them."""

from devicehub.provisioning.accounts import (
    choose_account_password,
    create_account,
    grant_ingest,
    rotate_account,
)
from devicehub.provisioning.credentials import (
    CREDENTIAL_FIELDS,
    MIN_CHOSEN,
    UnusablePassword,
    choose_password,
    key_of,
    revoke,
    rotate_api_key,
    rotate_password,
)
from devicehub.provisioning.devices import (
    UnknownDevice,
    UnknownKind,
    announce,
    create,
    described,
    disable,
    enable,
    find,
    kind_of,
    move,
    next_ids,
    set_expiry,
)
from devicehub.provisioning.names import (
    IdentityTaken,
    refuse_claimed,
    refuse_claims,
    refuse_taken,
    shared_names,
)
from devicehub.provisioning.subjects import subject_problem

__all__ = [
    "CREDENTIAL_FIELDS",
    "MIN_CHOSEN",
    "IdentityTaken",
    "UnknownDevice",
    "UnknownKind",
    "UnusablePassword",
    "announce",
    "choose_account_password",
    "choose_password",
    "create",
    "create_account",
    "described",
    "disable",
    "enable",
    "find",
    "grant_ingest",
    "key_of",
    "kind_of",
    "move",
    "next_ids",
    "refuse_claimed",
    "refuse_claims",
    "refuse_taken",
    "revoke",
    "rotate_account",
    "rotate_api_key",
    "rotate_password",
    "set_expiry",
    "shared_names",
    "subject_problem",
]
