"""The queue of received messages that are not yet acknowledged: bounded, and measured in bytes."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from devicehub.mqtt.listening.intake import Delivery, held

MOST_QUEUED = 16 << 20  # With more queued bytes the network thread must wait.
# Bytes of messages that are taken at once: decoded they take many times as much memory.
BATCH_BYTES = 2 << 20
EACH = 512  # Bytes of memory of a message besides the parts that its device chose.


class Queue:
    """Deliveries that the network thread puts and one reader takes.

    Three counters of bytes are each written by one thread alone, so that none needs a lock.
    """

    def __init__(self) -> None:
        self.in_hand: list[Delivery] = []  # Messages that are taken and not yet acknowledged.
        self.redelivered = 0  # Messages that the broker marked as sent before (DUP).
        self._deliveries: deque[Delivery] = deque()
        self._arrived = threading.Event()
        self._bytes_put = 0  # Written by the network thread.
        self._bytes_dropped = 0  # Written by the network thread.
        self._bytes_taken = 0  # Written by the reader.
        self._bytes_of_the_past = 0  # The value of _bytes_put when a connection broke.
        self._wanted_from = 0  # Messages of earlier generations are sent again.

    def put(self, delivery: Delivery) -> None:
        """Add *delivery* at the end. Called by the network thread."""
        if delivery.duplicate:
            self.redelivered += 1
        self._bytes_put += held(delivery) + EACH
        self._deliveries.append(delivery)
        if not self._arrived.is_set():
            self._arrived.set()

    def is_full(self) -> bool:
        """Return whether the open connection must wait; messages of earlier connections do not count."""
        gone = self._bytes_taken + self._bytes_dropped
        return self._bytes_put - max(gone, self._bytes_of_the_past) > MOST_QUEUED

    def end_connection(self, *, comes_again: bool) -> None:
        """Give the next connection the whole room of the queue. Called by the network thread.

        Queued messages are dropped if all of them are sent again (*comes_again*), or if the messages of broken
        connections would fill the memory.
        """
        if comes_again or self._queued_bytes > 2 * MOST_QUEUED:
            self._bytes_dropped += _size(self._pop(len(self._deliveries)))
        self._bytes_of_the_past = self._bytes_put

    def take(self, most: int, timeout: float) -> list[Delivery]:
        """Return queued messages, at most *most* and about BATCH_BYTES, after *timeout* seconds at most."""
        if not self._deliveries:
            self._arrived.clear()
            if not self._deliveries:
                self._arrived.wait(timeout)
        taken = self._pop(most, BATCH_BYTES)
        self._bytes_taken += _size(taken)
        self.in_hand = [delivery for delivery in taken if delivery.generation >= self._wanted_from]
        return self.in_hand

    def leave_out(self, before: int) -> None:
        """Have take() leave out messages of connections with a generation *before* this one."""
        self.in_hand = []
        self._wanted_from = before

    @property
    def waiting(self) -> int:
        """The number of messages that are queued or in hand."""
        return len(self._deliveries) + len(self.in_hand)

    @property
    def waiting_bytes(self) -> int:
        """The bytes of memory of the waiting messages: the parts that devices chose, and EACH for each message."""
        return self._queued_bytes + _size(self.in_hand)

    @property
    def oldest_waiting(self) -> float:
        """The age of the oldest waiting message in seconds, 0 without any."""
        for waiting in (self.in_hand, self._deliveries):
            try:
                return max(0.0, time.time() - waiting[0].received_at)
            except IndexError:  # The list is empty, or another thread was faster.
                continue
        return 0.0

    @property
    def _queued_bytes(self) -> int:
        return self._bytes_put - self._bytes_taken - self._bytes_dropped

    def _pop(self, most: int, most_bytes: float = math.inf) -> list[Delivery]:
        """Remove and return the first *most* messages, or fewer that together reach *most_bytes*."""
        taken: list[Delivery] = []
        size = 0
        try:
            while len(taken) < most and size < most_bytes:
                delivery = self._deliveries.popleft()
                taken.append(delivery)
                size += held(delivery)
        except IndexError:
            return taken
        return taken


def _size(deliveries: Sequence[Delivery]) -> int:
    """Return the bytes of memory of *deliveries*."""
    return sum([held(delivery) for delivery in deliveries]) + EACH * len(deliveries)
