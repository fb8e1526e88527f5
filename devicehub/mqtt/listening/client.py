"""paho's client for a listener: an Intake on each connection, and a network thread that reconnects by itself."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devicehub.mqtt.address import BrokerAddress
from devicehub.mqtt.listening.intake import Delivery, Intake
from devicehub.mqtt.listening.reconnection import Reconnection

SESSION_EXPIRY = 7 * 24 * 3600  # The broker keeps an absent listener's messages for so many seconds.
RECEIVE_MAXIMUM = 2000  # Messages that may be unacknowledged: while a batch is stored, the next one arrives.
PUBACK = 0x40  # The first byte of the packet.
# The packet id follows; without a reason code it is a success (MQTT 5.0, 3.4.2.1).
_PUBACK = bytes((PUBACK, 2))


class ListeningClient(paho.Client):
    """paho's client with an Intake on every connection, and with acks for many messages in one piece.

    Only the network thread opens, reads, writes and closes sockets. Other threads queue acks, or set a flag and wake
    it. Queued acks belong to a generation of the connection, which ends when its socket is closed: so nothing is
    added to paho's queue while paho walks through it to connect anew.
    """

    generation = 0  # The number of the connection.
    renewing = False  # The connection shall be replaced at once.
    dropping = False  # The connection shall be closed, and another one made after a pause.
    trouble: OSError | None = None  # The error of the last attempt to connect.
    deliver: Callable[[Delivery], None]
    full: Callable[[], bool]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._changing = threading.RLock()
        self._is_open = False  # There is a connection; it changes together with the generation.
        self._halted = threading.Event()
        self.reconnection = Reconnection()
        super().__init__(*arguments, **options)

    def aim_at(self, address: BrokerAddress, keepalive: int) -> None:
        """Have the network thread connect to *address* and resume the session that the broker has for us."""
        if self.protocol == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            self.connect_async(
                address.host, address.port, keepalive, clean_start=False, properties=properties
            )
        else:
            self.connect_async(address.host, address.port, keepalive)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge, in this order, the deliveries that came over the present connection."""
        with self._changing:
            current = [delivery for delivery in deliveries if delivery.generation == self.generation]
            acks = b"".join([_PUBACK + d.packet_id.to_bytes(2) for d in current if d.qos == 1])
            if acks:
                self._packet_queue(PUBACK, acks, 0, 1)
            for delivery in current:
                if delivery.qos == 2:
                    self.ack(delivery.packet_id, 2)

    def renew(self) -> None:
        """Have the network thread replace the connection at once, after the queued acks.

        Messages that came over it until now can no longer be acknowledged. Without a connection there is nothing to
        do: the next one is new.
        """
        with self._changing:
            if self._is_open:
                self.generation += 1
                self.renewing = True
        self._wake()

    def halt(self) -> None:
        """Stop connecting; the network thread ends once all queued packets are sent or the connection is lost."""
        self._thread_terminate = True
        self._halted.set()
        self._wake()

    def finish(self, timeout: float) -> None:
        """Halt, and wait *timeout* seconds at most for the network thread: it may hang in a look-up of a name."""
        self.halt()
        if (thread := self._thread) is not None:
            thread.join(timeout)

    @property
    def heard_at(self) -> float:
        """The time.monotonic() of the last bytes over the present connection; minus infinity without one."""
        connection = self._sock
        return connection.heard_at if isinstance(connection, Intake) else float("-inf")

    @property
    def trouble_is_final(self) -> bool:
        """True if the last error will not pass by itself: a bad certificate, no TLS, or an invalid host name."""
        if isinstance(self.trouble, ssl.SSLError):
            no_tls = self.trouble.reason == "WRONG_VERSION_NUMBER"
            return no_tls or isinstance(self.trouble, ssl.SSLCertVerificationError)
        return self.trouble is not None and isinstance(self.trouble.__cause__, UnicodeError)

    @property
    def is_running(self) -> bool:
        """True while the network thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def loop_misc(self) -> MQTTErrorCode:
        """Do paho's work between reading and writing, with regard to messages that paho does not see.

        paho waits up to two intervals for a sign of life. Here any byte is one, and half an interval must be enough
        for the answer to a ping. While the queue is full nothing is read, so the broker cannot be heard: it counts as
        connected, and pings go on so that it does not end the connection.
        """
        if self.renewing or self.dropping:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        if isinstance(self._sock, Intake):
            now = time.monotonic()
            heard = now if self.full() else self._sock.heard_at
            self._last_bytes_received = max(self._last_bytes_received, heard)
            if 0 < self._ping_t < heard:
                self._ping_t = 0.0
            elif self._ping_t and now - self._ping_t >= self._keepalive / 2:
                self._ping_t = now - self._keepalive
        return super().loop_misc()

    def _wake(self) -> None:
        if self._sockpairW is not None:
            try:
                self._sockpairW.send(b"0")
            except BlockingIOError:
                return  # Thousands of wake-ups are waiting already.

    def _create_socket(self) -> Any:
        try:
            connection = super()._create_socket()
        except UnicodeError as error:
            self.trouble = OSError(f"{self._host} is not the name of a host")
            raise self.trouble from error
        except OSError as error:
            self.trouble = error
            raise
        with self._changing:
            self.generation += 1
            self._is_open, self.renewing, self.dropping = True, False, False
            self._out_packet.clear()  # An old ack would acknowledge another message on this connection.
            return Intake(connection, int(self.protocol), self.generation, self.deliver, self.full)

    def _sock_close(self) -> None:
        with self._changing:
            if self._is_open:
                self.generation += 1
                self._is_open = False
        super()._sock_close()

    def _reconnect_wait(self) -> None:
        """Wait before the next attempt to connect; paho's own waits begin with a second and are not random."""
        with self._changing:
            at_once, self.renewing = self.renewing, False
        if not at_once:
            self._halted.wait(self.reconnection.delay())
