"""Messages on their way through the pipeline, as frozen values: judging makes them, storing makes new ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from devicehub.ingest.presence import Sign, Transition
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType
from devicehub.messages.decode import Sample
from devicehub.messages.message import FailureReason, Message, Notes, Outcome

# A message with one of these brings something new.
NEWS = frozenset({Outcome.STORED, Outcome.PARTIAL})
# A duplicate has its row already; the broker's retained copy without a time is no news.
NO_ROW = frozenset({Outcome.DUPLICATE, Outcome.RETAINED})


class DeviceRow(NamedTuple):
    """What must be known of a device to store its messages; who listens gets the whole device."""

    pk: int
    device_id: str
    is_active: bool


class Rejected(NamedTuple):
    """A message of no known device: it goes to the quarantine, unless the broker retained it.

    *kept_as* is the key of its row in the quarantine, or None where it is only counted.
    """

    message: Message
    reason: FailureReason
    detail: str
    key: str = ""
    outcome: Outcome = Outcome.FAILED
    kept_as: int | None = None


class Judged(NamedTuple):
    """A message of a known device, with what was found out about it, and what became of it in the database.

    *device* is a BaseDevice where anybody listens, else DeviceRow. *document* is what the row keeps instead of the
    bytes, or None; *digest* is the key of a message with a device time. *reply* is a device's answer and *answered*
    the name of the command it answers. *sign* is what it says about the device itself; *reason* and *detail* say
    why it failed. *kept_as* is the key of its row in the quarantine, or None where it is only counted; *row_key* and
    *row_written* are of its row where anybody listens. The last message of each device that its batch changed has
    the *transition*.
    """

    message: Message
    kind: Kind
    device: Any
    message_type: MessageType
    outcome: Outcome
    notes: Notes
    reason: FailureReason | None = None
    detail: str = ""
    samples: Sequence[Sample] = ()
    sign: Sign | None = None
    document: Any = None
    digest: str | None = None
    reply: dict[str, Any] | None = None
    answered: str = ""
    kept_as: int | None = None
    row_key: int | None = None
    row_written: datetime | None = None
    transition: Transition | None = None

    @property
    def key(self) -> str:
        return self.kind.key(self.device.device_id)

    def ended(self, outcome: Outcome, reason: FailureReason | None = None, detail: str = "") -> Judged:
        """Return the same message without readings, which changes nothing."""
        return self._replace(outcome=outcome, reason=reason, detail=detail, samples=(), sign=None)


Item = Judged | Rejected
