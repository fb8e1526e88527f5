"""A message on its way through the pipeline, and its possible outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self

from devicehub.errors import DevicehubError
from devicehub.messages.json_limits import MAX_KEPT as MAX_KEPT

MAX_DEPTH = 100  # The most levels of nesting in a payload.


class Message(NamedTuple):
    """One message of a device, from any transport. *received_at* is an aware time."""

    topic: str
    payload: bytes
    received_at: datetime
    retain: bool = False
    content_type: str = ""
    correlation_id: str = ""
    user_properties: tuple[tuple[str, str], ...] = ()


class Notes(list[str]):
    """Notes on the omitted values of a message and the reasons: the first MOST, and the number of the others.

    Otherwise a megabyte of values that cannot be used would become a hundred megabytes of notes.
    """

    MOST = 50
    more = 0  # A class attribute: most messages have no notes, so an empty list costs nothing.

    def append(self, note: str) -> None:
        """Add *note*, or only count it if MOST are kept already."""
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
        """Return the notes as they are stored and shown, with a last one for those that were only counted."""
        return [*self, f"and {self.more} more"] if self.more else list(self)


class Outcome(StrEnum):
    """The outcome of a message. Each message has exactly one."""

    STORED = "stored"
    PARTIAL = "partial"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    RETAINED = "retained"


class FailureReason(StrEnum):
    """The reason why a message failed. The list is complete, and docs/reference/quarantine.md explains each."""

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
    """A payload without anything that can be stored, with the reason."""

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
