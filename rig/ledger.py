"""What passes between a broker and a worker, read on the way: which messages are handed over and not acknowledged."""

from __future__ import annotations

from collections.abc import Iterator

from rig.proxy import TO_SERVER

PUBLISH, PUBACK = 3, 4


class Packets:
    """The packets in one direction of a connection, which comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""  # of the packet that is not whole yet

    def add(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """What is whole with this *piece*, as first byte and body (MQTT 5.0, 2.1)."""
        buffer = self._rest + piece
        while (end := _end(buffer)) is not None and end[1] <= len(buffer):
            yield buffer[0], buffer[end[0] : end[1]]
            buffer = buffer[end[1] :]
        self._rest = buffer


def packet_id(publish: bytes) -> int:
    """Of the body of a PUBLISH with QoS 1 or 2 (MQTT 5.0, 3.3.2)."""
    start = 2 + int.from_bytes(publish[:2])
    return int.from_bytes(publish[start : start + 2])


class Ledger:
    """Of one connection: the messages with QoS 1 that the broker handed over and has no ack for, by packet id."""

    def __init__(self) -> None:
        self._packets = {True: Packets(), False: Packets()}  # by whether the worker sends them
        self._open: dict[int, bool] = {}

    @property
    def undated(self) -> int:
        """How many of them have no key, and are stored again when they come again."""
        return sum(self._open.values())

    def note(self, direction: str, piece: bytes) -> None:
        """A *piece* passes the proxy."""
        of_worker = direction == TO_SERVER
        for first, body in self._packets[of_worker].add(piece):
            if of_worker and first >> 4 == PUBACK:
                self._open.pop(int.from_bytes(body[:2]), None)
            elif not of_worker and first >> 4 == PUBLISH and first & 6:
                self._open[packet_id(body)] = _has_no_key(body)


def _has_no_key(body: bytes) -> bool:
    """Without a time, or in the quarantine, where everything that comes again is kept again."""
    return b'"timestamp"' not in body or b"/STRANGER/" in body


def _end(buffer: bytes) -> tuple[int, int] | None:
    """Where the body of the first packet begins and ends; None when its length is not here yet."""
    length = 0
    for place, byte in enumerate(buffer[1:5]):
        length |= (byte & 127) << 7 * place
        if byte < 128:
            return place + 2, place + 2 + length
    return None
