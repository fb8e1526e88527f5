"""The interfaces of a kind that keeps values in its own tables, and of one that reads its own forms of messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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


class Narrow(NamedTuple):
    """A narrow table: each row is one value of a device, under the name in *name_column*.

    Its *model* has the columns of a model of Tables, perhaps `received_at`, and an index on `device`, *name_column*
    and `timestamp` in this order. A name has 1-100 characters. *value_column* is a number, or NULL for a value that no
    chart can show. If that is not the whole value, *columns* hold it, and *read* returns it from their values.
    """

    model: type[Any]
    name_column: str = "path"
    value_column: str = "number"
    columns: Sequence[str] = ()
    read: Callable[..., Any] = lambda value: value

    @property
    def exact(self) -> Sequence[str]:
        """The columns whose values *read* takes."""
        return self.columns or (self.value_column,)


class Tables(Protocol):
    """The tables of a kind's values, and their newest ones.

    *models* are the models of these tables. Each has a foreign key `device` to the device model, an `id`, and
    `timestamp` with an index: retention and removal delete their rows by these, in small portions. A model comes
    before another one that it refers to.

    These attributes are optional:

    - *narrow*, a Narrow of which the model is one of *models*: its rows are rolled up, shown in charts, and may be
      divided into partitions;
    - *current*, models with a foreign key `device` and an `id` whose rows are changed in place, such as the latest
      values: removal deletes them, retention does not;
    - *describe*, a function that returns the kinds.declare.Reading of a name in *narrow*, with its unit, or None;
    - *units*, a function that returns the units of names in *narrow* of one device (a primary key), by name; without
      it they are those of *describe*;
    - *weight*, a function that returns the bytes of the latest values of names of one device (a primary key), if they
      may be many: a program is then told to name fewer;
    - *counted*, the names under which rows are counted, by model; rows of other models are counted as `readings`.
    """

    @property
    def models(self) -> Sequence[type[Any]]: ...

    def latest(self, devices: Collection[int], names: Sequence[str]) -> Mapping[tuple[int, str], Latest]:
        """Return the newest value of each of *names*, by primary key of the device and name."""


class Store(Tables, Protocol):
    """Tables that the values in decoded `data` payloads are written to."""

    def read(self, document: Any, received_at: datetime) -> Any:
        """Return the messages.decode.Decoded that a decoded payload, a messages.decode.Document, holds.

        Raise messages.message.Unreadable for a payload without a value: it goes to the quarantine.
        """

    def write(self, measured: Sequence[Measured], received_at: datetime) -> None:
        """Write the values of a batch, in its transaction; an error that is raised undoes the batch.

        The batch is then stored in parts, and the message at fault goes to the quarantine.
        """


class Inbox(Protocol):
    """A kind's own part of the way of a message, if it has payload forms or state that no other kind has.

    *columns* are columns of the device model that read() needs beside the primary key, the device id and `is_active`.
    """

    @property
    def columns(self) -> Sequence[str]: ...

    def prepare(self) -> None:
        """Bring what read() needs up to date, once before the messages of a batch are read."""

    def read(self, message: Any, message_type: Any, device: Any) -> Any:
        """Return the messages.decode.Document and the ingest.items.Content of a messages.message.Message.

        Return None for a message that is read as those of other kinds. Raise messages.message.Unreadable.
        """

    def is_for(self, message: Any, device_id: str) -> bool:
        """Return whether *message* is for the device that has the id of its topic now.

        It is called for a message from the quarantine that no device had then: a later one may be another device.
        """

    def settle(self, items: list[Any]) -> list[Any]:
        """Return the ingest.items.Judged of a batch after a comparison with the rows of their devices.

        It is called in the transaction, before anything is written. It locks these rows, in the order of their keys.
        """

    def write(self, items: Sequence[Any], now: datetime) -> None:
        """Write the content of a batch, in its transaction; an error that is raised undoes the batch."""

    def listens(self) -> bool:
        """Return whether calls() has anything to do."""

    def calls(self, item: Any) -> Iterator[Callable[[], None]]:
        """Yield the notifications of listeners of one stored message; none raises an error."""
