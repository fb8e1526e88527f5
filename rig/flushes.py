"""In which order a worker stores, flushes and acknowledges, read from a trace of its system calls.

What a call does counts from when it returned, an ack from when it was about to be sent: so whatever stands before an
ack in the trace was done before it.
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
    """A system call on *place*, a path or an address: twice, before and after it did what it does."""

    name: str
    place: str
    data: bytes
    returned: bool


def calls(trace: Iterable[str]) -> Iterator[Call]:
    """Those that worked, in their order. strace tells one on two lines when another one came in between."""
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
    """Which messages, by their numbers, the calls so far have made safe from a loss of power."""

    safe: set[int]

    def note(self, call: Call) -> None: ...


class WriteAheadLog:
    """SQLite's (its file format, 4): frames of a header and a page, of which the last of a commit tells its size."""

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
    """PostgreSQL at this *port*: it flushes, and then it says that it has committed (its protocol, 55.7)."""

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
    """Of all messages, also where PostgreSQL gets their bytes in hexadecimal."""
    texts = [bytes.fromhex(text.decode()) for text in IN_HEXADECIMAL.findall(data)]
    return {int(number) for text in (data, *texts) for number in NUMBER.findall(text)}


class Acks(NamedTuple):
    """How many were seen, and for which messages one was sent too early."""

    seen: int
    early: list[int]


def acks(trace: Iterable[str], broker: int, storage: Storage) -> Acks:
    """What a worker acknowledged to the *broker* at this port, of a *trace* that begins before it connects."""
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
