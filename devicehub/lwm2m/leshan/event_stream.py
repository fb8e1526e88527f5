"""Server-sent events, read from the bytes of a stream (HTML Living Standard, 9.2.6). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from devicehub.messages.json_limits import MAX_KEPT

MAX_EVENT = MAX_KEPT  # The most bytes of one event; a longer one is skipped and counted.
LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)  # A CR at the very end may be the first half of CR LF.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event: its name, and the lines of its data."""

    name: str
    data: str


class EventStream:
    """The events of one stream, whose bytes arrive in pieces of any size.

    Comments, ids, waits and empty lines that keep the stream alive are left out. *skipped* counts events that were
    too long. Memory is bounded: at most two events of MAX_EVENT bytes are kept.
    """

    def __init__(self, most: int = MAX_EVENT) -> None:
        self._most = most
        self._begun = bytearray()  # The beginning of a line whose end has not arrived.
        self._is_first = True
        self._is_cut = False  # The rest of the line is dropped.
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self.skipped = 0

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """Yield the events that end in *piece*."""
        searched = max(0, len(self._begun) - 1)
        self._begun += piece
        lines, position = [], 0
        for end in list(LINE_END.finditer(self._begun, searched)):
            lines.append(bytes(self._begun[position : end.start()]))
            position = end.end()
        del self._begun[:position]
        for line in lines:
            if self._is_cut:
                self._is_cut = False  # The line was given up before its end arrived.
                continue
            event = self._read(line)
            if event is not None:
                yield event
        if len(self._begun) > self._most:
            self._size, self._is_cut = self._most + 1, True
        if self._is_cut:
            del self._begun[: len(self._begun) - self._begun.endswith(b"\r")]

    def _read(self, line: bytes) -> ServerEvent | None:
        """Read one line; return the event that an empty line ends."""
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            return self._ended()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value[:100].decode("utf-8", "replace")
        elif field == b"data":
            self._size += len(value) + 1
            if self._size > self._most:
                self._data.clear()
            else:
                self._data.append(value)
        return None

    def _ended(self) -> ServerEvent | None:
        name, data, size = self._name or "message", self._data, self._size
        self._name, self._data, self._size = "", [], 0
        if size > self._most:
            self.skipped += 1
            return None
        return ServerEvent(name, b"\n".join(data).decode("utf-8", "replace")) if data else None
