"""paho's client as a listener needs it: an Intake on each connection, a network thread that comes back by itself."""

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

SESSION_EXPIRY = 7 * 24 * 3600  # seconds that the broker keeps an absent listener's messages
RECEIVE_MAXIMUM = 2000  # messages that may be unacknowledged: while a batch is stored, the next one arrives
PUBACK = 0x40  # the first byte of a packet
_PUBACK = bytes((PUBACK, 2))  # then the packet id; without a reason code it is a success (MQTT 5.0, 3.4.2.1)


class ListeningClient(paho.Client):
    """paho's client with an Intake on every connection, and with acks for many messages in one piece.

    Only the network thread opens, reads, writes and closes sockets. Other threads queue acks, or leave a wish
    and wake it. What they queue belongs to a generation of the connection, which ends when its socket does:
    so nothing is added to paho's queue while paho walks through it to connect anew.
    """

    generation = 0  # of the connection
    renewing = False  # whether the connection shall be replaced at once
    dropping = False  # whether it shall be closed, and another one made after a pause
    trouble: OSError | None = None  # why the last attempt found nobody
    deliver: Callable[[Delivery], None]
    full: Callable[[], bool]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._changing = threading.RLock()
        self._is_open = False  # whether there is a connection, changed together with its generation
        self._halted = threading.Event()
        self.reconnection = Reconnection()
        super().__init__(*arguments, **options)

    def aim_at(self, address: BrokerAddress, keepalive: int) -> None:
        """Have the network thread connect to *address* and go on with the session that the broker has for us."""
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
        """Acknowledge in this order those that came over the connection that is open now."""
        with self._changing:
            current = [delivery for delivery in deliveries if delivery.generation == self.generation]
            acks = b"".join([_PUBACK + d.packet_id.to_bytes(2) for d in current if d.qos == 1])
            if acks:
                self._packet_queue(PUBACK, acks, 0, 1)
            for delivery in current:
                if delivery.qos == 2:
                    self.ack(delivery.packet_id, 2)

    def renew(self) -> None:
        """Have the network thread replace the connection at once, after the acks that are queued.

        What came over it until now can no longer be acknowledged. While there is no connection there is
        nothing to do: the next one is new.
        """
        with self._changing:
            if self._is_open:
                self.generation += 1
                self.renewing = True
        self._wake()

    def halt(self) -> None:
        """Connect no more; the network thread ends once what is queued is sent or the connection is gone."""
        self._thread_terminate = True
        self._halted.set()
        self._wake()

    def finish(self, timeout: float) -> None:
        """Halt and wait for the network thread; one that hangs in a look-up of a name is left behind."""
        self.halt()
        if (thread := self._thread) is not None:
            thread.join(timeout)

    @property
    def heard_at(self) -> float:
        """When the broker last said anything over the connection that is open now; minus infinity without one."""
        connection = self._sock
        return connection.heard_at if isinstance(connection, Intake) else float("-inf")

    @property
    def trouble_is_final(self) -> bool:
        """Whether the last trouble will not pass by itself: a certificate, no TLS there, no host name."""
        if isinstance(self.trouble, ssl.SSLError):
            no_tls = self.trouble.reason == "WRONG_VERSION_NUMBER"
            return no_tls or isinstance(self.trouble, ssl.SSLCertVerificationError)
        return self.trouble is not None and isinstance(self.trouble.__cause__, UnicodeError)

    @property
    def is_running(self) -> bool:
        """Whether the network thread lives."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def loop_misc(self) -> MQTTErrorCode:
        """What paho does between reading and writing, knowing of messages that it does not see.

        paho waits up to two intervals for a sign of life. Here any byte is one, and half an interval has to
        do for the answer to a ping. While the queue is full nothing is read, so the broker cannot be heard:
        it is taken to be there, and pings go on so that it takes us to be here.
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
                return  # it has not yet seen the last thousands of these

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
            self._out_packet.clear()  # an ack of the last connection would be one of another message on this
            return Intake(connection, int(self.protocol), self.generation, self.deliver, self.full)

    def _sock_close(self) -> None:
        with self._changing:
            if self._is_open:
                self.generation += 1
                self._is_open = False
        super()._sock_close()

    def _reconnect_wait(self) -> None:
        """In place of paho's: that begins with a second and knows no chance."""
        with self._changing:
            at_once, self.renewing = self.renewing, False
        if not at_once:
            self._halted.wait(self.reconnection.delay())
