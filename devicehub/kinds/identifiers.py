"""The rules for device ids, client ids and the slugs of kinds. Pure: all other code compares them as strings."""

from __future__ import annotations

import hashlib
import re

DEVICE_ID = re.compile(r"[A-Za-z0-9_:-]{1,128}")
CLIENT_ID = re.compile(r"[^+#\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]{1,128}")
SLUG = re.compile(r"[^/+#\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,100}")
MAX_USERNAME = 128


def is_device_id(text: str) -> bool:
    """Return whether *text* can be a device id: 1-128 ASCII letters, digits, `_`, `:` and `-`.

    It holds no `.` (RabbitMQ's level separator), none of `+ # / $`, no space and no control character.

    >>> is_device_id("STATION-001"), is_device_id("ST.1"), is_device_id("+"), is_device_id("a\\n")
    (True, False, False, False)
    """
    return DEVICE_ID.fullmatch(text) is not None


def is_slug(text: str) -> bool:
    """Return whether *text* can be the slug of a kind: one topic level of 1-100 characters, without a space.

    >>> is_slug("weatherstation"), is_slug("account/x"), is_slug("a+"), is_slug("a b"), is_slug("")
    (True, False, False, False, False)
    """
    return SLUG.fullmatch(text) is not None


def is_text(value: object) -> bool:
    """Return whether *value* is a text that PostgreSQL and SQLite both store: without NUL and lone surrogates."""
    return isinstance(value, str) and re.search("[\x00\ud800-\udfff]", value) is None


def is_client_id(text: str) -> bool:
    """Return whether *text* can be the client id of a device: 1-128 characters, no `+`, `#` or control character.

    MQTT 5.0, 1.5.4 lets a broker close the connection for control characters and for code points without a character.

    >>> is_client_id("radio 7"), is_client_id("é/1"), is_client_id("a+"), is_client_id("a\\x00"), is_client_id("")
    (True, True, False, False, False)
    """
    return CLIENT_ID.fullmatch(text) is not None


def mqtt_username(app_label: str, model_name: str, device_id: str) -> str:
    """Return the username of a device: `{app}-{model}-{device_id}`, at most 128 characters.

    A longer one is cut to 111 characters, plus `-` and 16 hex digits of the id's SHA-256, so that no two are equal.

    >>> mqtt_username("fleet", "weatherstationdevice", "STATION-001")
    'fleet-weatherstationdevice-STATION-001'
    """
    username = f"{app_label.lower()}-{model_name.lower()}-{device_id}"
    if len(username) <= MAX_USERNAME:
        return username
    return f"{username[:111]}-{hashlib.sha256(device_id.encode()).hexdigest()[:16]}"
