"""A message on its way through the pipeline, and how it can end."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

MAX_KEPT = 1 << 20  # bytes of a payload that is read, and that the quarantine keeps: 1 MiB
MAX_DEPTH = 100  # levels of nesting in a payload


class Message(NamedTuple):
    """One message of a device, from whatever transport. *received_at* is aware."""

    topic: str
    payload: bytes
    received_at: datetime
    retain: bool = False
    content_type: str = ""
    correlation_id: str = ""
    user_properties: tuple[tuple[str, str], ...] = ()


class Outcome(StrEnum):
    """What became of a message; exactly one of them."""

    STORED = "stored"
    PARTIAL = "partial"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    RETAINED = "retained"


class Reason(StrEnum):
    """Why a message failed. Closed: each is explained in docs/reference/quarantine.md."""

    UNKNOWN_TOPIC = "unknown_topic"
    UNKNOWN_DEVICE = "unknown_device"
    DISABLED_DEVICE = "disabled_device"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NOT_CBOR = "not_cbor"
    NOT_A_READING = "not_a_reading"
    NO_VALUE = "no_value"
    RATE_LIMITED = "rate_limited"
    UNSTORABLE = "unstorable"


class Unreadable(Exception):
    """A payload that says nothing we can store, with the reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
