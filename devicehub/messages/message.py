"""A message on its way through the pipeline, and how it can end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self

from devicehub.errors import DevicehubError
from devicehub.messages.json_limits import MAX_KEPT as MAX_KEPT

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


class Notes(list[str]):
    """What was left out of a message and why: the first MOST, and how many more there are.

    A megabyte of values that cannot be used would otherwise become a hundred of notes.
    """

    MOST = 50
    more = 0  # most messages leave none, so nothing is done for an empty one

    def append(self, note: str) -> None:
        if len(self) < self.MOST:
            super().append(note)
        else:
            self.more += 1

    def __iadd__(self, notes: Iterable[str]) -> Self:  # type: ignore[misc, override]
        if notes:
            for note in notes:
                self.append(note)
            self.more += getattr(notes, "more", 0)
        return self

    def shown(self) -> list[str]:
        """For people."""
        return [*self, f"and {self.more} more"] if self.more else list(self)


class Outcome(StrEnum):
    """What became of a message; exactly one of them."""

    STORED = "stored"
    PARTIAL = "partial"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    RETAINED = "retained"


class FailureReason(StrEnum):
    """Why a message failed. Closed: each is explained in docs/reference/quarantine.md."""

    UNKNOWN_TOPIC = "unknown_topic"
    UNKNOWN_DEVICE = "unknown_device"
    DISABLED_DEVICE = "disabled_device"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NOT_CBOR = "not_cbor"
    NOT_A_READING = "not_a_reading"
    NO_VALUE = "no_value"
    TOO_MANY_SAMPLES = "too_many_samples"
    RATE_LIMITED = "rate_limited"
    UNSTORABLE = "unstorable"


class Unreadable(DevicehubError):
    """A payload that says nothing we can store, with the reason."""

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
