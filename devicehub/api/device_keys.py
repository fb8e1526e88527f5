"""The keys of devices in requests: their limits, and the statement that finds the device of one."""

from __future__ import annotations

from collections.abc import Sequence

from devicehub.db.statements import quoted
from devicehub.kinds.registry import Kind

LONGEST_KEY = 256

# Limits of failures per minute, after which further ones get status 429: of one key at one address, and of different
# keys at one address. A valid key is never refused for failures of others: a fleet may share an address, and 256 random
# bits cannot be guessed.
MAX_OF_ONE = 5
MANY_KEYS = 30


def statement(kinds: Sequence[Kind]) -> str:
    """Return the statement that finds the active device of a key in all of *kinds*; each takes the digest once.

    A row has the position of the kind, the primary key, the device id and the MQTT username.
    """
    return " UNION ALL ".join(
        f"SELECT {position}, id, device_id, mqtt_username FROM {quoted(kind.device_model._meta.db_table)}"  # noqa: S608 - a name of a model
        " WHERE api_key = %s AND is_active"
        for position, kind in enumerate(kinds)
    )
