"""The MQTT session of an ingest worker, with manual acks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from devicehub.mqtt.address import CONNECT_TIMEOUT, BrokerAddress, MqttError, client
from devicehub.mqtt.listening.client import ListeningClient
from devicehub.mqtt.listening.diagnosis import Diagnosis
from devicehub.mqtt.listening.drops import Drops
from devicehub.mqtt.listening.intake import Delivery, described_by
from devicehub.mqtt.listening.queue import Queue
from devicehub.mqtt.listening.subscription import Subscription

KEEPALIVE = 10  # Seconds: a cut connection is found after 15 at most, for 2 bytes in 10 s without messages.
FLUSH_TIMEOUT = 3.0  # Seconds for the broker to receive our last acks.
STOP_TIMEOUT = 2.0  # Seconds for the network thread to end.
# Reason codes of MQTT 5.0, 2.4.
SESSION_TAKEN_OVER = 0x8E
KEEP_ALIVE_TIMEOUT = 0x8D
LOGIN_REFUSED = frozenset({0x86, 0x87})  # Bad user name or password, not authorized.
# Unspecified, implementation specific, server unavailable, server busy, quota exceeded, connection rate exceeded.
PASSING = frozenset({0x80, 0x83, 0x88, 0x89, 0x97, 0x9F})


class Listener:
    """A session at the broker, with manual acks: the broker sends unacknowledged messages again.

    The network thread only queues. A reader takes queued messages, stores them, and then acknowledges them.
    *drops* are topics where the broker counts dropped messages; their numbers are in `broker_drops`.
    *judge* is called when the broker refuses the login or a filter. It returns why the refusal is final, or an empty
    text if the broker may only have been unable to ask its service.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        filters: Sequence[str],
        *,
        version: str = "5",
        drops: Iterable[str] = (),
        keepalive: int = KEEPALIVE,
        report: Callable[[str], None] = lambda _: None,
        judge: Callable[[], str] = lambda: "are the username and the password right, and may it subscribe?",
    ) -> None:
        self._address, self.client_id = address, client_id
        self._keepalive, self._report, self._judge = keepalive, report, judge
        self._queue = Queue()
        self._drops = Drops(drops, self._report_once)
        self._diagnosis = Diagnosis(address, version, self._report_once)
        self._is_resumed = False  # The present connection found a session.
        self._greeting = ""  # The line that is reported once the subscription is granted.
        self._is_answered = False  # The present connection had a CONNACK.
        self._welcome = False  # The broker has accepted a login.
        self._connected_at = 0.0  # The value is 0 without a connection.
        self._ready = threading.Event()
        self._flushed = threading.Event()
        self._interrupted = False
        self._started = self._stopping = False
        self._failure = self._reported = ""
        self.reconnects = 0  # Connections after the first.
        self._listening_since: float | None = None
        self._client = client(address, client_id, version, clean=False, made=ListeningClient, reconnects=True)
        self._subscription = Subscription(self._client, filters, self._drops.topics, self._report_once)
        self._client.deliver = self._put if self._drops.topics else self._queue.put
        self._client.full = self._queue.is_full
        self._client.manual_ack_set(True)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_unsubscribe = self._on_unsubscribe

    def start(self, former: Sequence[str] = (), timeout: float = CONNECT_TIMEOUT) -> None:
        """Connect and subscribe, then unsubscribe from *former*; return early after interrupt().

        If the broker is away, or does not answer within *timeout* seconds, retry without limit, and report each cause.
        Raise MqttError for a final cause: a refusal that *judge* confirms, a client id or a version that the broker
        refuses, a certificate that is not trusted, a host that cannot exist.
        A broker sends the messages that wait in the session before it answers. If no more of them fit, return, and the
        caller must take some of them first.
        """
        self._subscription.former = list(former)
        self._client.aim_at(self._address, self._keepalive)
        self._client.loop_start()
        self._started = True
        while not (self._ready.is_set() or self._failure or self._interrupted):
            if self._queue.is_full():
                self._ready.set()
            elif 0 < self.heard_at < time.monotonic() - timeout:
                self._diagnose(f"did not answer within {timeout:g} s")
            self._ready.wait(0.05)
        if self.failure:
            self.stop()
            raise MqttError(self._failure)

    def interrupt(self) -> None:
        """Have start() return soon. A signal handler may call this: it takes no lock."""
        self._interrupted = True

    def take(self, most: int, timeout: float) -> list[Delivery]:
        """Return queued messages, at most *most* and about BATCH_BYTES.

        Wait *timeout* seconds for the first message and never for a full batch. Leave out messages from before
        redeliver(): the broker sends them again. Keep messages of a broken connection: a broker that was killed may
        have lost them after it sent them (mosquitto 2.0.11 does).
        """
        return self._queue.take(most, timeout)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge in the order received. The broker sends messages of an earlier connection again by itself."""
        self._client.acknowledge(deliveries)
        self._queue.in_hand = []

    def redeliver(self) -> None:
        """Have all unacknowledged messages sent again: a broker does that on a new connection only."""
        self._listening_since = None
        self._client.renew()
        self._queue.leave_out(before=self._client.generation)

    @property
    def listening_since(self) -> float | None:
        """The time.monotonic() since which this listener gets published messages; None while it does not."""
        return self._listening_since

    @property
    def is_settled(self) -> bool:
        """True if the session holds the filters of this listener and no others, according to the broker's answers."""
        return self._listening_since is not None and not self._subscription.former

    @property
    def is_resumed(self) -> bool:
        """True if the broker had a session for this listener when it last connected."""
        return self._is_resumed

    @property
    def heard_at(self) -> float:
        """The time.monotonic() of the last bytes from the broker, at least the answer to a ping."""
        return self._client.heard_at

    @property
    def failure(self) -> str:
        """A sentence about why this listener gets no more messages; empty while it works or reconnects."""
        working = self._client.is_running or self._stopping or not self._started
        if not self._failure and not working:
            self._failure = "the thread of the connection ended by an error of its own"
        return self._failure

    @property
    def is_connected(self) -> bool:
        return self._connected_at > 0

    @property
    def waiting(self) -> int:
        """The number of messages that are received and not acknowledged, queued or being stored."""
        return self._queue.waiting

    @property
    def waiting_bytes(self) -> int:
        """The bytes of memory of the waiting messages: the parts that devices chose, and EACH for each message."""
        return self._queue.waiting_bytes

    @property
    def oldest_waiting(self) -> float:
        """The age of the oldest waiting message in seconds, 0 without any."""
        return self._queue.oldest_waiting

    @property
    def redelivered(self) -> int:
        """The number of messages that the broker marked as sent before (DUP)."""
        return self._queue.redelivered

    @property
    def broker_drops(self) -> dict[str, float]:
        """The last number at each of the topics of drops."""
        return self._drops.counts

    def stop(self) -> None:
        """Disconnect, once the broker has received all acks.

        Acks that are still on their way when a socket with unread input is closed are lost with it. The answer
        to a request that was sent after them proves that they arrived.
        """
        self._stopping = True
        if self._client.is_connected():
            result, _ = self._client.unsubscribe("devicehub/none")
            if result == paho.MQTT_ERR_SUCCESS:
                self._flushed.wait(FLUSH_TIMEOUT)
        self._client.disconnect()
        self._client.finish(STOP_TIMEOUT)

    def _diagnose(self, what: str) -> None:
        self._diagnosis.begin(what, is_logged_in=self.is_connected, is_moot=self._ready.is_set)

    def _fail(self, text: str) -> None:
        self._failure = text
        self._client.halt()

    def _retry(self) -> None:
        """Close the connection, which is of no use, and connect again after a pause."""
        self._connected_at = 0.0
        self._client.dropping = True

    @property
    def _where(self) -> str:
        return f"{self._address.host}:{self._address.port}"

    def _put(self, delivery: Delivery) -> None:
        if self._drops.is_one(delivery.topic):
            self._drops.note(delivery)
        else:
            self._queue.put(delivery)

    def _report_once(self, text: str) -> None:
        """Report *text*, unless it is the same as the last report."""
        if text != self._reported and not self._stopping:
            self._reported = text
            self._report(text)

    def _on_connect(self, _c: Any, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        self._is_answered = True
        if reason.is_failure:
            self._refused(reason)
            return
        again, self._welcome = self._welcome and self._ready.is_set(), True
        self._connected_at = time.monotonic()
        self._is_resumed = bool(flags.session_present)
        self.reconnects += again
        self._greeting = f"connected to {self._where}"
        if not self._is_resumed and again:
            self._greeting += ", which lost the session of this worker and the messages in it"
        elif not self._is_resumed:
            self._greeting += " in a new session, without the messages that were published before"
        self._subscription.begin()
        if not self._subscription.filters:
            self._subscribed()

    def _refused(self, reason: ReasonCode) -> None:
        refusal = f"{self._where} refused the connection: {reason}"
        if self._ready.is_set() or reason.value in PASSING:  # Accepted before, so its service may be away.
            self._report_once(f"{refusal}, trying again")
        elif reason.value not in LOGIN_REFUSED:
            self._fail(refusal)
        elif why := self._judge():
            self._fail(f"{refusal}; {why}")
        else:
            self._report_once(
                f"{refusal}, and the service itself does not refuse it: the broker may not reach it; trying again"
            )

    def _on_connect_fail(self, _c: Any, _u: Any) -> None:
        self._client.reconnection.failed()
        text = f"no connection to {self._where} ({self._client.trouble})"
        if self._ready.is_set() or not self._client.trouble_is_final:
            self._report_once(f"{text}, trying again")
        else:
            self._fail(text)

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        self._listening_since = None
        self._queue.end_connection(comes_again=self._client.renewing)
        reconnection, since, self._connected_at = self._client.reconnection, self._connected_at, 0.0
        was_answered, self._is_answered = self._is_answered, False
        by_broker = flags.is_disconnect_packet_from_server
        if self._stopping:
            return
        if by_broker and reason.value == SESSION_TAKEN_OVER:
            self._failure = (
                f"another client connected to {self._where} as {self.client_id} and took over the session; "
                "is a second worker running with the same --worker number?"
            )
            self._client.halt()
        elif self._client.renewing:
            return
        elif not since:
            reconnection.failed()
            if self._ready.is_set() and reason.value == KEEP_ALIVE_TIMEOUT:
                self._report_once(f"{self._where} does not answer, trying again")
            elif not (self._ready.is_set() or was_answered):
                self._diagnose("closed the connection instead of an answer")
        else:
            reconnection.lost(time.monotonic() - since, silently=reason.value == KEEP_ALIVE_TIMEOUT)
            self._subscription.give_up_former(self._where)
            if self._ready.is_set() and not self._failure:
                shown = str(reason) if by_broker or reason.value == KEEP_ALIVE_TIMEOUT else "it was closed"
                self._report_once(reconnection.explain(shown, self.client_id))
            elif not (self._ready.is_set() or self._failure):
                self._hung_up()

    def _hung_up(self) -> None:
        if not self._subscription.hung_up():
            return
        said = f"{self._where} hung up on the subscription to {self._subscription.filters[0]}"
        if why := self._judge():
            self._fail(f"{said}; {why}")
        else:
            self._report_once(f"{said}, which the service itself does not refuse; trying again")

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        refused = self._subscription.granted(mid, reasons)
        if refused is None:
            return
        if not refused:
            self._subscribed()
        elif why := self._judge():
            self._failure = (
                f"the broker refused the subscription to {refused}; {why}; after a new device type "
                "the account needs `manage.py create_account NAME --ingest --grant-only`"
            )
            self._ready.set()
        else:
            self._report_once(
                f"the broker refused the subscription to {refused}, and the service itself does not refuse it: "
                "the broker may not reach it; trying again"
            )
            self._retry()

    def _subscribed(self) -> None:
        self._client.reconnection.connected()
        self._report_once(self._greeting)
        self._listening_since = time.monotonic()
        self._ready.set()
        self._subscription.go_on(is_resumed=self._is_resumed)

    def _on_unsubscribe(self, _c: Any, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        if not self._subscription.removed(mid, reasons):
            self._flushed.set()

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        """Queue a message that an Intake left to paho."""
        self._client.deliver(
            Delivery(
                message.topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                message.dup,
                time.time(),
                *described_by(message.properties),
                message.mid,
                self._client.generation,
            )
        )
