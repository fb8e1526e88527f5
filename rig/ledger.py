"""The packets between a broker and a worker, read by a proxy: messages handed over and not acknowledged."""

from __future__ import annotations

from collections.abc import Iterator

from rig.proxy import TO_SERVER

PUBLISH, PUBACK = 3, 4


class Packets:
    """The packets in one direction of a connection, from the pieces that a proxy passes on."""

    def __init__(self) -> None:
        self._rest = b""  # the beginning of an incomplete packet

    def add(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield first byte and body of each packet that *piece* completes (MQTT 5.0, 2.1)."""
        buffer = self._rest + piece
        while (end := _end(buffer)) is not None and end[1] <= len(buffer):
            yield buffer[0], buffer[end[0] : end[1]]
            buffer = buffer[end[1] :]
        self._rest = buffer


def packet_id(publish: bytes) -> int:
    """Return the packet id in the body of a PUBLISH with QoS 1 or 2 (MQTT 5.0, 3.3.2)."""
    start = 2 + int.from_bytes(publish[:2])
    return int.from_bytes(publish[start : start + 2])


class Ledger:
    """The messages of one connection with QoS 1 that were handed over and are not acknowledged, by packet id."""

    def __init__(self) -> None:
        self._packets = {True: Packets(), False: Packets()}  # by whether the worker sends them
        self._open: dict[int, bool] = {}

    @property
    def undated(self) -> int:
        """The number of those without a key, which are stored again when they come again."""
        return sum(self._open.values())

    def note(self, direction: str, piece: bytes) -> None:
        """Record that *piece* passes the proxy in *direction*."""
        of_worker = direction == TO_SERVER
        for first, body in self._packets[of_worker].add(piece):
            if of_worker and first >> 4 == PUBACK:
                self._open.pop(int.from_bytes(body[:2]), None)
            elif not of_worker and first >> 4 == PUBLISH and first & 6:
                self._open[packet_id(body)] = _has_no_key(body)


def _has_no_key(body: bytes) -> bool:
    """Return whether the message has no time, or goes to the quarantine, which stores each repetition."""
    return b'"timestamp"' not in body or b"/STRANGER/" in body


def _end(buffer: bytes) -> tuple[int, int] | None:
    """Return begin and end of the body of the first packet, or None if its length is incomplete."""
    length = 0
    for place, byte in enumerate(buffer[1:5]):
        length |= (byte & 127) << 7 * place
        if byte < 128:
            return place + 2, place + 2 + length
    return None
