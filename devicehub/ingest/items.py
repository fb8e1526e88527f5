"""Messages on their way through the pipeline, as immutable values; each step makes new ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from devicehub.ingest.presence import Sign, Transition
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType
from devicehub.messages.decode import Sample
from devicehub.messages.message import FailureReason, Message, Notes, Outcome

# A message with one of these outcomes has new content.
NEWS = frozenset({Outcome.STORED, Outcome.PARTIAL})
# A duplicate has its row already; the broker's retained copy without a time is not new.
NO_ROW = frozenset({Outcome.DUPLICATE, Outcome.RETAINED})


class DeviceRow(NamedTuple):
    """The columns of a device that its messages need to be stored; with a listener the whole model is loaded.

    *further* are the values of the columns that the inbox of its kind names.
    """

    pk: int
    device_id: str
    is_active: bool
    further: tuple[Any, ...] = ()


class Content(NamedTuple):
    """The content of a payload. *sign* is evidence about the device itself; *own* is for the inbox of its kind."""

    sign: Sign
    samples: list[Sample]
    has_device_time: bool = False
    reply: dict[str, Any] | None = None
    own: Any = None


class Rejected(NamedTuple):
    """A message without an existing device: it goes to the quarantine, unless the broker retained it.

    *kept_as* is the key of its row in the quarantine, or None if it is only counted.
    """

    message: Message
    reason: FailureReason
    detail: str
    key: str = ""
    outcome: Outcome = Outcome.FAILED
    kept_as: int | None = None


class Judged(NamedTuple):
    """A message of an existing device, with its decoded content and its outcome in the database.

    *device* is a BaseDevice if the kind has listeners, else DeviceRow. *document* is stored in the row instead of the
    bytes, or is None; *digest* is the key of a message with a device time. *reply* is a device's answer and *answered*
    the name of the command it answers; *own* is for the inbox of its kind. *sign* is evidence about the device itself;
    *reason* and *detail* explain a failure. *kept_as* is the key of its row in the quarantine, or None if it is only
    counted; *row_key* and *row_written* describe its row if the kind has listeners. The last message of each device
    that its batch changed has the *transition*.
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
    own: Any = None
    answered: str = ""
    kept_as: int | None = None
    row_key: int | None = None
    row_written: datetime | None = None
    transition: Transition | None = None

    @property
    def key(self) -> str:
        """The key of the device, such as `weatherstation/STATION-001`."""
        return self.kind.key(self.device.device_id)

    def ended(self, outcome: Outcome, reason: FailureReason | None = None, detail: str = "") -> Judged:
        """Return this message with *outcome*, and without its content, so that it changes nothing."""
        return self._replace(outcome=outcome, reason=reason, detail=detail, samples=(), sign=None, own=None)


Item = Judged | Rejected
