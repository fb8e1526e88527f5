"""Where a kind keeps the values that its devices measure, if it is not a table with a column for each reading."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol


class Measured(NamedTuple):
    """Values by name that one device, given by its primary key, measured at one time."""

    device: int
    timestamp: datetime
    values: Mapping[str, Any]


class Latest(NamedTuple):
    """A value, and when it was measured."""

    value: Any
    measured_at: datetime


class Store(Protocol):
    """Reads the values in `data` payloads, writes them into tables of its own, and finds the newest ones.

    *models* are the models of these tables. Each has a foreign key `device` to the device model, an `id`, and
    `timestamp` with an index: retention and removal delete their rows by these, in small portions.
    """

    @property
    def models(self) -> Sequence[type[Any]]: ...

    def read(self, document: Any, received_at: datetime) -> Any:
        """Return the messages.decode.Decoded that a decoded payload, a messages.decode.Document, holds.

        Raises messages.message.Unreadable for a payload without a value: it goes to the quarantine.
        """

    def write(self, measured: Sequence[Measured], received_at: datetime) -> None:
        """Write the values of a batch. Called in its transaction; what is raised undoes the batch.

        The batch is then stored in parts, and the message at fault goes to the quarantine.
        """

    def latest(self, devices: Collection[int], names: Sequence[str]) -> Mapping[tuple[int, str], Latest]:
        """Return the newest value of each of *names*, by primary key of the device and name."""
