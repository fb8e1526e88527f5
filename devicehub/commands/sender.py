"""The sender of this process. It publishes commands at once after a commit, and retries those that failed."""

from __future__ import annotations

import threading
import time
import uuid
from datetime import datetime, timedelta

import structlog
from django.utils import timezone

from devicehub import mqtt, signals
from devicehub.backoff import Backoff
from devicehub.commands import transitions
from devicehub.commands.wire import Envelope, Undeliverable, connect, envelope
from devicehub.db import clock
from devicehub.models import CommandState, DeviceCommand

log = structlog.get_logger(__name__)

BATCH = 100
LONGEST = 5.0  # seconds after which send_due() leaves the rest for the next call
ACK_TIMEOUT = 10.0  # seconds to wait for the broker's ack
PATIENCE = 10.0  # seconds that a caller waits for another thread that is sending
IDLE = 10.0  # seconds without work after which the connection is closed
HOLD_OFF = Backoff((1, 2, 5, 10, 30))  # seconds until the next attempt to connect
AMEND_EVERY = 60.0  # seconds between two searches for times that a wrong clock has written
NO_SUBSCRIBERS = 0x10
# Topic name invalid, payload format invalid (MQTT 5.0, 3.4.2.1): a retry would get the same refusal. Not authorized
# (0x87) is not among them: a broker also returns it while our authorization service restarts.
REFUSED_FOR_GOOD = frozenset({0x90, 0x99})


class Sender:
    """One connection, used by one thread at a time: a broker closes the older of two under one client id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: mqtt.Connection | None = None
        # These three are times of the monotonic clock.
        self._used = 0.0
        self._away_until = 0.0
        self._amend_at = 0.0
        self._failures = 0
        self._refusal = ""

    def send_due(self, most: int = BATCH) -> int:
        """Send due commands and expire late ones, at most *most*; return how many the broker accepted.

        Raises DatabaseError. After 5 s it starts no other command; a broker that does not respond adds up to 20 s.
        """
        if time.monotonic() >= self._amend_at:
            if clock.is_right():
                transitions.amend_times(timezone.now())
            self._amend_at = time.monotonic() + AMEND_EVERY
        commands = transitions.due(timezone.now(), most)
        if not commands:
            self._rest()
        sent, end = 0, time.monotonic() + LONGEST
        for command in commands:
            with self._lock:
                letter = self._send(command)
            if letter is not None:
                _notify(command, letter)
                sent += 1
            if time.monotonic() > end:
                break
        return sent

    def send_now(self, command_id: uuid.UUID) -> None:
        """Send this command unless another process does. If there was no connection, close the one it opened."""
        if not self._lock.acquire(timeout=PATIENCE):
            return
        was_open = self._connection is not None
        try:
            command = DeviceCommand.objects.get(pk=command_id)
            letter = self._send(command)
        finally:
            if not was_open:
                self._hang_up()
            self._lock.release()
        if letter is not None:
            _notify(command, letter)

    def close(self) -> None:
        """Close the connection and reset all waiting times, unless it stays in use for longer than a second."""
        if self._lock.acquire(timeout=1):
            try:
                self._hang_up()
                self._away_until, self._amend_at, self._failures = 0.0, 0.0, 0
            finally:
                self._lock.release()

    def _send(self, command: DeviceCommand) -> Envelope | None:
        """Return the message that the broker accepted, or None; the caller notifies listeners without the lock."""
        now = timezone.now()
        if command.deadline <= now:
            transitions.expire(command, now)
            return None
        hold_off = self._away_until - time.monotonic()
        if hold_off > 0:
            transitions.postpone(command, self._refusal, now + timedelta(seconds=hold_off))
            return None
        if not transitions.claim(command, now):
            return None
        # After any failure from here on, other commands are sent before this one is due again.
        try:
            connection = self._open()
        except (mqtt.MqttError, mqtt.InvalidAddress) as error:
            self._hold_off(str(error))
            transitions.retry(command, timezone.now(), str(error))
            return None
        now = timezone.now()  # Connecting may have taken seconds, so the deadline is checked again.
        if command.deadline <= now:
            transitions.postpone(command, command.error, now)
            return None
        try:
            letter = envelope(command, now)
        except Undeliverable as error:
            transitions.fail(command, now, str(error))
            return None
        return letter if self._publish(connection, command, letter) else None

    def _publish(self, connection: mqtt.Connection, command: DeviceCommand, letter: Envelope) -> bool:
        sent_at = timezone.now()
        try:
            ack = connection.publish(letter.message, ACK_TIMEOUT)
        except mqtt.Unacknowledged as error:
            self._hold_off("the broker did not acknowledge the command before this one")
            # RabbitMQ closes the connection if the account may not publish, mosquitto if the message is too large.
            why = f"{error}; check that the account may publish there, at this size"
            transitions.retry(command, timezone.now(), why, sent_at=sent_at)
        except mqtt.MqttError as error:
            self._hang_up()
            transitions.retry(command, timezone.now(), str(error))
        except ValueError as error:  # paho refuses such a message.
            transitions.fail(command, timezone.now(), f"it cannot be published: {error}")
        else:
            self._used, self._failures = time.monotonic(), 0
            return _conclude(command, letter.message, ack, sent_at)
        return False

    def _open(self) -> mqtt.Connection:
        if self._connection is not None and not self._connection.connected:
            self._hang_up()
        if self._connection is None:
            self._connection = connect()
        return self._connection

    def _hang_up(self) -> None:
        """Close the connection, so that it does not send unacknowledged messages again later on its own."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _hold_off(self, refusal: str) -> None:
        self._hang_up()
        self._refusal = refusal
        self._failures += 1
        self._away_until = time.monotonic() + HOLD_OFF.after(self._failures)

    def _rest(self) -> None:
        if self._connection is None or time.monotonic() - self._used < IDLE:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._hang_up()
            finally:
                self._lock.release()


def _conclude(command: DeviceCommand, message: mqtt.Outgoing, ack: mqtt.Ack, sent_at: datetime) -> bool:
    """Record the broker's ack; return whether it accepted the command and that was not recorded before."""
    now = timezone.now()
    if ack.code == NO_SUBSCRIBERS:
        transitions.retry(command, now, f"there is no subscriber to {message.topic}: the device is away")
        return False
    if ack.is_failure:
        error = f"the broker refused a message to {message.topic}: {ack.reason} (0x{ack.code:02x})"
        if ack.code in REFUSED_FOR_GOOD:
            transitions.fail(command, now, error)
        else:
            transitions.retry(command, now, error)
        return False
    state = CommandState.ACKNOWLEDGED if message.qos else CommandState.SENT
    return transitions.record_sent(command, state, sent_at, now)


def _notify(command: DeviceCommand, letter: Envelope) -> None:
    signals.send(
        signals.device_command_sent,
        letter.sender,
        device=letter.device,
        command=command.name,
        payload=command.payload,
    )


_of_this_process = Sender()
send_due = _of_this_process.send_due
send_now = _of_this_process.send_now
close = _of_this_process.close
