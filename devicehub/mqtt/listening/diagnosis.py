"""Diagnosis of a broker that does not answer a login, by logins without a name, which need no answer of the service."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable

from devicehub.mqtt.address import CONNECT_TIMEOUT, BrokerAddress

EVERY = 60.0  # Seconds between two diagnoses, since each makes two connections.
CONNACK = 0x20  # The first byte of the packet.
# Its codes for an unsupported version (MQTT 3.1.1, 3.2.2.3; MQTT 5.0, 3.2.2.2).
OTHER_VERSION = (b"\x01", b"\x84")
# CONNECT with an empty client id and a clean start (MQTT 5.0 and 3.1.1, 3.1).
CONNECTS = {
    "5": b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00",
    "3.1.1": b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00",
}


class Diagnosis:
    """A search, in a thread of its own and at most once in EVERY seconds, for the reason why a broker does not answer.

    *report* is called in that thread, with the behaviour of the broker and its likely cause.
    """

    def __init__(self, address: BrokerAddress, version: str, report: Callable[[str], None]) -> None:
        self._address, self._version, self._report = address, version, report
        self._due = float("-inf")

    def begin(self, what: str, *, is_logged_in: bool, is_moot: Callable[[], bool]) -> None:
        """Look for the cause of *what* the broker does instead of an answer; report it, unless it *is_moot* by then."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + EVERY

        def find_out() -> None:
            cause = "it accepted the login, so the service that it asks about topics may be slow or away"
            if not is_logged_in:
                cause = cause_of_silence(self._address, self._version)
            if not is_moot():
                self._report(f"{self._address.host}:{self._address.port} {what}: {cause}; trying again")

        threading.Thread(target=find_out, name="diagnosis", daemon=True).start()


def cause_of_silence(address: BrokerAddress, version: str, timeout: float = CONNECT_TIMEOUT) -> str:
    """Return the likely cause, in a sentence. This takes *timeout* seconds if the broker does not answer at all.

    Both versions are tried at the same time: a broker that waits for its service answers neither.
    """
    opened = {spoken: _open(address, connect, timeout) for spoken, connect in CONNECTS.items()}
    end = time.monotonic() + timeout
    # The configured version first: if there is no answer, the other version had as long to answer.
    answered = {spoken: _answers(opened[spoken], end) for spoken in sorted(opened, key=version.__ne__)}
    if answered[version]:
        return "it answers other clients, so the service that it asks about logins may be slow or away"
    for other, is_answered in answered.items():
        if is_answered:
            return f"it answers MQTT {other} and not MQTT {version}: set DEVICEHUB_MQTT_VERSION={other}"
    return "it answers no client: the broker, or the service that it asks about logins, is slow or away"


def _open(address: BrokerAddress, connect: bytes, timeout: float) -> socket.socket | None:
    try:
        opened = socket.create_connection((address.host, address.port), timeout)
        if address.tls:
            opened = ssl.create_default_context().wrap_socket(opened, server_hostname=address.host)
        opened.sendall(connect)
    except (OSError, UnicodeError):
        return None
    return opened


def _answers(opened: socket.socket | None, end: float) -> bool:
    """Return whether a CONNACK that does not refuse the version comes before *end*, by time.monotonic().

    Close the socket.
    """
    if opened is None:
        return False
    with opened:
        try:
            opened.settimeout(max(0.05, end - time.monotonic()))
            head = opened.recv(5)  # Type, length in one or two bytes, flags, code.
        except OSError:
            return False
    code_at = 4 if head[1:2] > b"\x7f" else 3
    return head[:1] == bytes((CONNACK,)) and head[code_at : code_at + 1] not in OTHER_VERSION
