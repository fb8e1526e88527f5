"""The interface of a kind's own store of values, instead of a table with a column for each reading."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol


class Measured(NamedTuple):
    """The values, by name, that one device measured at one time; *device* is its primary key."""

    device: int
    timestamp: datetime
    values: Mapping[str, Any]


class Latest(NamedTuple):
    """A value and its time of measurement."""

    value: Any
    measured_at: datetime


class Store(Protocol):
    """A store that reads the values in `data` payloads, writes them into its own tables, and finds the newest ones.

    *models* are the models of these tables. Each has a foreign key `device` to the device model, an `id`, and
    `timestamp` with an index: retention and removal delete their rows by these, in small portions.
    """

    @property
    def models(self) -> Sequence[type[Any]]: ...

    def read(self, document: Any, received_at: datetime) -> Any:
        """Return the messages.decode.Decoded that a decoded payload, a messages.decode.Document, holds.

        Raise messages.message.Unreadable for a payload without a value: it goes to the quarantine.
        """

    def write(self, measured: Sequence[Measured], received_at: datetime) -> None:
        """Write the values of a batch, in its transaction; an error that is raised undoes the batch.

        The batch is then stored in parts, and the message at fault goes to the quarantine.
        """

    def latest(self, devices: Collection[int], names: Sequence[str]) -> Mapping[tuple[int, str], Latest]:
        """Return the newest value of each of *names*, by primary key of the device and name."""
