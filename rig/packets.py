"""Packets of MQTT byte by byte, and the other end of a connection that sends them in pieces."""

PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x04\x00\x01\x00\x01"
TOPIC = "things/weatherstation/STATION-001/data"


class Broker:
    """The other end of a connection: sends *pieces*, and then nothing, or closes the connection."""

    def __init__(self, pieces, *, hangs_up=False):
        self._pieces, self._hangs_up = list(pieces), hangs_up

    def recv(self, size):
        """Return the next piece, whatever *size* is. Raise BlockingIOError if there is none."""
        if self._pieces:
            return self._pieces.pop(0)
        if self._hangs_up:
            return b""
        raise BlockingIOError


def publish(payload, *, topic=TOPIC, flags=0b0010, packet_id=7, properties=b"\x00"):
    """Return a PUBLISH of MQTT 5, or of 3.1.1 if *properties* is empty."""
    name = topic.encode() if isinstance(topic, str) else topic
    body = len(name).to_bytes(2) + name + (packet_id.to_bytes(2) if flags & 6 else b"") + properties + payload
    length, left = b"", len(body)
    while True:
        left, digit = left >> 7, left & 127
        length += bytes([digit | (128 if left else 0)])
        if not left:
            return bytes([0x30 | flags]) + length + body


def text(content):
    """Return *content* with its length before it."""
    return len(content).to_bytes(2) + content


def block(content):
    """Return the properties *content* with their length before them."""
    length = (
        bytes([len(content)]) if len(content) < 128 else bytes([len(content) & 127 | 128, len(content) >> 7])
    )
    return length + content
