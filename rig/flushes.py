"""The order in which a worker stores, flushes and acknowledges, read from a trace of its system calls.

A call counts when it has returned, an ack when its call begins. So each call before an ack in the trace was
complete before the ack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from rig.ledger import PUBACK, PUBLISH, Packets, packet_id
from rig.sender import NUMBER, number_in

# Whole buffers in hexadecimal, and what each file descriptor is.
STRACE = (
    "-xx",
    "-yy",
    "--string-limit=1000000",
    "--signal=none",
    "--trace=sendto,sendmsg,write,writev,recvfrom,pwrite64,fsync,fdatasync",
)
CALL = re.compile(r"(\d+) +(\w+)\(\d+<(\w+:\[[^]]*\]|[^>]*)>(.*)")
RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
UNFINISHED = "<unfinished ...>"
BUFFER = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
IN_HEXADECIMAL = re.compile(rb"(?:%s)(?:3[0-9])+" % b'"rainfall": '.hex().encode())
RESULT = re.compile(r" = (-?\d+)[^=]*$")


class Call(NamedTuple):
    """A system call on *place*, a path or an address. It comes twice: when it begins and when it has returned."""

    name: str
    place: str
    data: bytes
    returned: bool


def calls(trace: Iterable[str]) -> Iterator[Call]:
    """Yield the successful calls in their order. strace splits a call in two lines if another one came between."""
    open_calls: dict[str, tuple[str, str, str]] = {}  # by thread: name, place, arguments
    for line in trace:
        if (begun := CALL.match(line)) is not None:
            thread, name, place, rest = begun.groups()
            arguments = rest.removesuffix(UNFINISHED)
            yield Call(name, _text(place), _buffer(arguments), returned=False)
            if rest.endswith(UNFINISHED):
                open_calls[thread] = name, place, arguments
                continue
        elif (resumed := RESUMED.match(line)) is not None and resumed[1] in open_calls:
            name, place, arguments = open_calls.pop(resumed[1])
            arguments += resumed[2]
        else:
            continue
        result = RESULT.search(arguments)
        if result is not None and (count := int(result[1])) >= 0:
            yield Call(name, _text(place), _buffer(arguments)[:count], returned=True)


def _text(place: str) -> str:
    return bytes.fromhex(place.replace("\\x", "")).decode() if place.startswith("\\x") else place


def _buffer(arguments: str) -> bytes:
    return b"".join(bytes.fromhex(text.replace("\\x", "")) for text in BUFFER.findall(arguments))


class Storage(Protocol):
    """The numbers of the messages that the calls so far have made safe from a loss of power."""

    safe: set[int]

    def note(self, call: Call) -> None:
        """Update *safe* after *call*."""


class WriteAheadLog:
    """The log of SQLite (its file format, 4): frames of header and page; the last of a commit has the size set."""

    def __init__(self) -> None:
        self.safe: set[int] = set()
        self._written: set[int] = set()
        self._committed: set[int] = set()
        self._flushing: set[int] = set()
        self._is_last = False

    def note(self, call: Call) -> None:
        if not call.place.endswith("-wal"):
            return
        if call.name in ("fsync", "fdatasync"):
            if call.returned:
                self.safe |= self._flushing
            else:
                self._flushing = set(self._committed)
        elif call.returned and len(call.data) == 24:
            self._is_last = any(call.data[4:8])
        elif call.returned and len(call.data) > 32:
            self._written |= numbers_in(call.data)
            if self._is_last:
                self._committed |= self._written


class CommitAnswers:
    """PostgreSQL at *port*: it flushes, and then sends that it has committed (its protocol, 55.7)."""

    def __init__(self, port: int) -> None:
        self.safe: set[int] = set()
        self._written: set[int] = set()
        self._peer = f"->127.0.0.1:{port}]"
        self._rest = b""

    def note(self, call: Call) -> None:
        if not call.place.endswith(self._peer):
            return
        if call.name == "recvfrom":
            if call.returned and b"C\x00\x00\x00\x0bCOMMIT\x00" in call.data:
                self.safe |= self._written
        elif call.returned:
            sent = self._rest + call.data
            self._written |= numbers_in(sent)
            self._rest = sent[-80:]  # a number may have been cut in two


def numbers_in(data: bytes) -> set[int]:
    """Return the numbers of all messages in *data*, also if PostgreSQL gets their bytes in hexadecimal."""
    texts = [bytes.fromhex(text.decode()) for text in IN_HEXADECIMAL.findall(data)]
    return {int(number) for text in (data, *texts) for number in NUMBER.findall(text)}


class Acks(NamedTuple):
    """The number of acks, and the numbers of the messages whose ack was sent too early."""

    seen: int
    early: list[int]


def acks(trace: Iterable[str], broker: int, storage: Storage) -> Acks:
    """Return the acks of a worker to the port *broker*, from a *trace* that begins before it connects."""
    peer = f"->127.0.0.1:{broker}]"
    seen, early = 0, []
    handed_over: dict[int, int | None] = {}  # numbers by packet id
    received, sent = Packets(), Packets()
    for call in calls(trace):
        if not call.place.endswith(peer):
            storage.note(call)
        elif call.name == "recvfrom" and call.returned:
            for first, body in received.add(call.data):
                if first >> 4 == PUBLISH and first & 6:
                    handed_over[packet_id(body)] = number_in(body)
        elif call.name != "recvfrom" and not call.returned:
            for first, body in sent.add(call.data):
                if first >> 4 == PUBACK:
                    seen += 1
                    number = handed_over.get(int.from_bytes(body[:2]))
                    if number not in storage.safe:
                        early.append(-1 if number is None else number)
    return Acks(seen, early)
