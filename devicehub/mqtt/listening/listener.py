"""A session of ours at the broker, with manual acks: what an ingest worker listens with."""

from __future__ import annotations

import math
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devicehub.mqtt.address import CONNECT_TIMEOUT, BrokerAddress, MqttError, client
from devicehub.mqtt.listening.client import Session
from devicehub.mqtt.listening.diagnosis import cause_of_silence
from devicehub.mqtt.listening.intake import Delivery, described_by, held

SESSION_EXPIRY = 7 * 24 * 3600  # seconds that the broker keeps an absent listener's messages
RECEIVE_MAXIMUM = 2000  # messages that may be unacknowledged: while a batch is stored, the next one arrives
MOST_QUEUED = 16 << 20  # bytes that wait to be stored, beyond which the network must wait
BATCH_BYTES = 2 << 20  # of messages that are taken at once: what is read of them takes many times as much
EACH = 512  # bytes that a message takes in memory besides what its device chose
KEEPALIVE = 10  # seconds: a cut connection is found after 15 at most, for 2 bytes in 10 s when all is quiet
FLUSH_TIMEOUT = 3.0  # seconds for the broker to have our last acks
STOP_TIMEOUT = 2.0  # seconds for the network thread to end
THROWN_OUT = 3  # times in a row, soon after connecting, from when on it is told what the cause may be
HUNG_UP = 2  # times in a row that a broker closed the connection instead of an answer, before it counts as a refusal
DIAGNOSE_EVERY = 60.0  # seconds: a diagnosis makes two connections
UNSUBSCRIBED_AT_ONCE = 50  # filters in one packet
SESSION_TAKEN_OVER = 0x8E  # reason codes of MQTT 5.0, 2.4
KEEP_ALIVE_TIMEOUT = 0x8D
LOGIN_REFUSED = frozenset({0x86, 0x87})  # bad user name or password, not authorized
# Unspecified, implementation specific, server unavailable, server busy, quota exceeded, connection rate exceeded.
PASSING = frozenset({0x80, 0x83, 0x88, 0x89, 0x97, 0x9F})


class Listener:
    """A session of ours at the broker, with manual acks: what is not acknowledged comes again.

    The network thread only queues. A reader takes what is queued, stores it, and then acknowledges it.
    *drops* are topics where the broker counts what it dropped; their messages end in `broker_drops`.
    *judge* is called when the broker refuses the login or a filter. It returns why this will not pass, or an empty
    text where the broker may only have been unable to ask its service.
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
        self._address, self.client_id, self._filters = address, client_id, list(filters)
        self._version, self._keepalive, self._report, self._judge = version, keepalive, report, judge
        self._drop_topics = list(dict.fromkeys(drops))
        self._is_drop_topic = frozenset(self._drop_topics).__contains__
        self._queue: deque[Delivery] = deque()
        self._arrived = threading.Event()
        self._in_hand: list[Delivery] = []  # taken and not yet acknowledged
        # Three counters, each written by one thread alone, so that none needs a lock.
        self._bytes_put = 0  # by the network thread
        self._bytes_forgotten = 0  # by the network thread
        self._bytes_taken = 0  # by who takes
        self._bytes_of_the_past = 0  # how many had been put when a connection broke
        self._wanted_from = 0  # the generation before which everything comes again
        self._former: list[str] = []  # filters that the session may hold and shall not
        self._is_resumed = False  # whether the connection that is open now found a session
        self._greeting = ""  # what is reported once the subscription is granted
        self._is_answered = False  # whether the connection that is open now had a CONNACK, or is closed
        self._hang_ups = 0  # in a row, after the login and before the answer to a request
        self._diagnose_at = float("-inf")
        self._welcome = False  # whether the broker ever let us in
        self._connected_at = 0.0  # 0 while there is no connection
        self._requests: dict[int, str] = {}  # what is not answered yet, by packet id
        self._ready = threading.Event()
        self._flushed = threading.Event()
        self._interrupted = False
        self._started = self._stopping = False
        self._failure = ""
        self._reported = ""
        self.redelivered = 0  # messages that the broker marked as handed over before (DUP)
        self.reconnects = 0  # connections after the first
        self.broker_drops: dict[str, float] = {}  # what the broker last said at each of *drops*
        self._listening_since: float | None = None
        self._client = client(address, client_id, version, clean=False, made=Session, reconnects=True)
        self._client.deliver = self._put
        self._client.full = self._full
        self._client.manual_ack_set(True)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_unsubscribe = self._on_unsubscribe

    def start(self, former: Sequence[str] = (), timeout: float = CONNECT_TIMEOUT) -> None:
        """Connect and subscribe, then unsubscribe from *former*; return early after interrupt().

        A broker that is away, or does not answer within *timeout* seconds, is tried again for as long as it takes, and
        each cause is reported. Raises MqttError for what will not pass: a refusal that *judge* confirms, a client id or
        a version that the broker refuses, a certificate that is not trusted, a host that cannot exist.
        A broker hands over what waits in the session before it answers. When no more of it fits, this returns, and
        the caller must take some of it first.
        """
        self._former = list(former)
        self._prepare()
        self._client.loop_start()
        self._started = True
        while not (self._ready.is_set() or self._failure or self._interrupted):
            if self._full():
                self._ready.set()
            elif 0 < self.heard_at < time.monotonic() - timeout:
                self._diagnose(f"did not answer within {timeout:g} s")
            self._ready.wait(0.05)
        if self.failure:
            self.stop()
            raise MqttError(self._failure)

    def interrupt(self) -> None:
        """Have start() return soon. May be called by a signal's handler: it takes no lock."""
        self._interrupted = True

    def take(self, most: int, timeout: float) -> list[Delivery]:
        """What is queued, at most *most* messages and about BATCH_BYTES.

        Waits *timeout* seconds for the first and never for a full batch. What came before redeliver() is left out,
        for it comes again. What came over a connection that broke is not: it was handed over, and a broker that was
        killed may have forgotten it (mosquitto 2.0.11 does).
        """
        if not self._queue:
            self._arrived.clear()
            if not self._queue:
                self._arrived.wait(timeout)
        taken = self._pop(most, BATCH_BYTES)
        self._bytes_taken += _size(taken)
        self._in_hand = [delivery for delivery in taken if delivery.generation >= self._wanted_from]
        return self._in_hand

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge in the order received. Those of an earlier connection come again by themselves."""
        self._client.acknowledge(deliveries)
        self._in_hand = []

    def redeliver(self) -> None:
        """Have everything that is not acknowledged sent again: a broker does that on a new connection only."""
        self._listening_since = None
        self._in_hand = []
        self._client.renew()
        self._wanted_from = self._client.generation

    @property
    def listening_since(self) -> float | None:
        """Since when, by time.monotonic(), this listener gets what is published; None while it does not."""
        return self._listening_since

    @property
    def is_settled(self) -> bool:
        """Whether the session holds the filters of this listener and no other, as far as the broker said."""
        return self._listening_since is not None and not self._former

    @property
    def is_resumed(self) -> bool:
        """Whether the broker had a session for this listener when it last connected."""
        return self._is_resumed

    @property
    def heard_at(self) -> float:
        """When, by time.monotonic(), the broker last said anything, an answer to a ping at least."""
        return self._client.heard_at

    @property
    def failure(self) -> str:
        """Why this listener gets nothing any more, in a sentence; empty while it works or reconnects."""
        working = self._client.is_running or self._stopping or not self._started
        if not self._failure and not working:
            self._failure = "the thread of the connection ended by an error of its own"
        return self._failure

    @property
    def is_connected(self) -> bool:
        return self._connected_at > 0

    @property
    def waiting(self) -> int:
        """Messages that are here and not acknowledged, whether queued or being stored."""
        return len(self._queue) + len(self._in_hand)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of memory that these take: what their devices chose, and EACH for every one."""
        return self._queued_bytes() + _size(self._in_hand)

    @property
    def oldest_waiting(self) -> float:
        """Seconds since the oldest of these came, 0 without any."""
        for waiting in (self._in_hand, self._queue):
            try:
                return max(0.0, time.time() - waiting[0].received_at)
            except IndexError:  # also when another thread was faster
                continue
        return 0.0

    def stop(self) -> None:
        """Disconnect, once the broker has what was acknowledged.

        Acks that are still on their way when a socket with unread input is closed are lost with it. The answer
        to a request that was sent after them says that they arrived.
        """
        self._stopping = True
        if self._client.is_connected():
            result, _ = self._client.unsubscribe("devicehub/none")
            if result == paho.MQTT_ERR_SUCCESS:
                self._flushed.wait(FLUSH_TIMEOUT)
        self._client.disconnect()
        self._client.finish(STOP_TIMEOUT)

    def _diagnose(self, what: str) -> None:
        """Report, from a thread of its own, *what* the broker does instead of an answer and why that may be."""
        now = time.monotonic()
        if now < self._diagnose_at:
            return
        self._diagnose_at = now + DIAGNOSE_EVERY
        is_in = self.is_connected

        def find_out() -> None:
            cause = "it took the login, so the service that it asks about topics may be slow or away"
            if not is_in:
                cause = cause_of_silence(self._address, self._version)
            if not self._ready.is_set():
                self._tell(f"{self._where} {what}: {cause}; trying again")

        threading.Thread(target=find_out, name="diagnosis", daemon=True).start()

    def _fail(self, text: str) -> None:
        self._failure = text
        self._client.halt()

    def _retry(self) -> None:
        """Close the connection, which did not become one that works, and connect again after a pause."""
        self._connected_at = 0.0
        self._client.dropping = True

    @property
    def _where(self) -> str:
        return f"{self._address.host}:{self._address.port}"

    def _prepare(self) -> None:
        """Say what the network thread shall connect with."""
        host, port = self._address.host, self._address.port
        if self._client.protocol == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            self._client.connect_async(host, port, self._keepalive, clean_start=False, properties=properties)
        else:
            self._client.connect_async(host, port, self._keepalive)

    def _put(self, delivery: Delivery) -> None:
        if self._is_drop_topic(delivery.topic):
            self._note_drops(delivery)
            return
        if delivery.duplicate:
            self.redelivered += 1
        self._bytes_put += held(delivery) + EACH
        self._queue.append(delivery)
        if not self._arrived.is_set():
            self._arrived.set()

    def _pop(self, most: int, most_bytes: float = math.inf) -> list[Delivery]:
        """The first *most* messages, fewer where one of them reaches *most_bytes* together."""
        taken: list[Delivery] = []
        size = 0
        try:
            while len(taken) < most and size < most_bytes:
                delivery = self._queue.popleft()
                taken.append(delivery)
                size += held(delivery)
        except IndexError:
            return taken
        return taken

    def _queued_bytes(self) -> int:
        return self._bytes_put - self._bytes_taken - self._bytes_forgotten

    def _full(self) -> bool:
        """Whether the connection that is open now must wait; what an earlier one left does not keep it silent."""
        gone = self._bytes_taken + self._bytes_forgotten
        return self._bytes_put - max(gone, self._bytes_of_the_past) > MOST_QUEUED

    def _note_drops(self, delivery: Delivery) -> None:
        try:
            number = float(delivery.payload)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            self.broker_drops = {**self.broker_drops, delivery.topic: number}
        else:
            self._tell(f"what {delivery.topic} says is no number")

    def _tell(self, text: str) -> None:
        """Report *text* once, however often the same happens again."""
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
            self._greeting += ", which lost the session of this worker and what waited in it"
        elif not self._is_resumed:
            self._greeting += " in a new session, which has nothing of what was published before"
        self._requests.clear()
        if self._filters:
            self._subscribe("filters", [(text, 1) for text in self._filters])
        else:
            self._subscribed()

    def _refused(self, reason: ReasonCode) -> None:
        refusal = f"{self._where} refused the connection: {reason}"
        if self._ready.is_set() or reason.value in PASSING:  # once it let us in: its service may be away
            self._tell(f"{refusal}, trying again")
        elif reason.value not in LOGIN_REFUSED:
            self._fail(refusal)
        elif why := self._judge():
            self._fail(f"{refusal}; {why}")
        else:
            self._tell(
                f"{refusal}, and the service itself does not refuse it: the broker may not reach it; trying again"
            )

    def _subscribe(self, what: str, wanted: list[tuple[str, int]]) -> None:
        _, packet_id = self._client.subscribe(wanted)
        if packet_id is not None:
            self._requests[packet_id] = what

    def _on_connect_fail(self, _c: Any, _u: Any) -> None:
        self._client.reconnection.failed()
        trouble = self._client.trouble
        text = f"no connection to {self._where} ({trouble})"
        if self._ready.is_set() or not _is_final(trouble):
            self._tell(f"{text}, trying again")
        else:
            self._fail(text)

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        self._listening_since = None
        if self._client.renewing or self._queued_bytes() > 2 * MOST_QUEUED:
            self._bytes_forgotten += _size(self._pop(len(self._queue)))  # it comes again
        self._bytes_of_the_past = self._bytes_put
        reconnection, since, self._connected_at = self._client.reconnection, self._connected_at, 0.0
        was_answered, self._is_answered = self._is_answered, False
        told = flags.is_disconnect_packet_from_server
        if self._stopping:
            return
        if told and reason.value == SESSION_TAKEN_OVER:
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
                self._tell(f"{self._where} does not answer, trying again")
            elif not (self._ready.is_set() or was_answered):
                self._diagnose("closed the connection instead of an answer")
        else:
            reconnection.lost(time.monotonic() - since, silently=reason.value == KEEP_ALIVE_TIMEOUT)
            if "former" in self._requests.values():
                self._hung_up_on_former()
            if self._ready.is_set() and not self._failure:
                self._tell(self._loss(reason if told or reason.value == KEEP_ALIVE_TIMEOUT else None))
            elif not (self._ready.is_set() or self._failure):
                self._hung_up()

    def _hung_up(self) -> None:
        """Some brokers close the connection on a filter that they refuse; others when they lose their service."""
        self._hang_ups += 1
        if self._hang_ups < HUNG_UP:
            return
        said = f"{self._where} hung up on the subscription to {self._filters[0]}"
        if why := self._judge():
            self._fail(f"{said}; {why}")
        else:
            self._tell(f"{said}, which the service itself does not refuse; trying again")

    def _hung_up_on_former(self) -> None:
        self._hang_ups += 1
        if self._hang_ups >= HUNG_UP:
            self._tell(f"{self._where} hung up on the end of the subscription to {', '.join(self._former)}")
            self._former = []

    def _loss(self, reason: ReasonCode | None) -> str:
        times = self._client.reconnection.evictions
        why = f"connection lost ({reason or 'it was closed'})"
        if times < THROWN_OUT:
            return f"{why}, trying again"
        return (
            f"{why}, {times} times in a row soon after connecting: another client probably connects as "
            f"{self.client_id}, such as a second worker with the same --worker number; trying again less often"
        )

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        what = self._requests.pop(mid, "")
        asked = self._drop_topics if what == "drops" else self._filters
        refused = ", ".join(text for text, r in zip(asked, reasons, strict=False) if r.is_failure)
        if what == "drops":
            if refused:
                self._tell(f"the broker does not let us read {refused} (DEVICEHUB_MQTT_DROPS)")
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
            self._tell(
                f"the broker refused the subscription to {refused}, and the service itself does not refuse it: "
                "the broker may not reach it; trying again"
            )
            self._retry()

    def _subscribed(self) -> None:
        self._client.reconnection.connected()
        self._tell(self._greeting)
        self._listening_since = time.monotonic()
        self._ready.set()
        if self._drop_topics:
            self._subscribe("drops", [(topic, 0) for topic in self._drop_topics])
        if not self._is_resumed:
            self._former = []
        self._unsubscribe()

    def _unsubscribe(self) -> None:
        """Ask for the next of the former filters to be removed, after the new ones were granted: none is missed."""
        if self._former:
            _, packet_id = self._client.unsubscribe(self._former[:UNSUBSCRIBED_AT_ONCE])
            if packet_id is not None:
                self._requests[packet_id] = "former"

    def _on_unsubscribe(self, _c: Any, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        if self._requests.pop(mid, "") != "former":
            self._flushed.set()
            return
        self._hang_ups = 0
        asked, self._former = self._former[:UNSUBSCRIBED_AT_ONCE], self._former[UNSUBSCRIBED_AT_ONCE:]
        refused = [text for text, r in zip(asked, reasons, strict=False) if r.is_failure]
        if refused:
            self._tell(
                f"the broker refused to end the subscription to {', '.join(refused)}, which earlier settings made: "
                "what it sends for that is acknowledged, and may be stored twice; see --begin-anew"
            )
        self._unsubscribe()

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        """What an Intake left to paho."""
        self._put(
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


def _is_final(trouble: OSError | None) -> bool:
    """Return whether *trouble* with a connection will not pass by itself: a certificate, no TLS there, no host name."""
    if isinstance(trouble, ssl.SSLError):
        return isinstance(trouble, ssl.SSLCertVerificationError) or trouble.reason == "WRONG_VERSION_NUMBER"
    return trouble is not None and isinstance(trouble.__cause__, UnicodeError)


def _size(deliveries: Sequence[Delivery]) -> int:
    """Bytes that they take in memory."""
    return sum([held(delivery) for delivery in deliveries]) + EACH * len(deliveries)
