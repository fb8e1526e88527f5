"""What a broker handed over and waits to have acknowledged: bounded, and measured in bytes."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from devicehub.mqtt.listening.intake import Delivery, held

MOST_QUEUED = 16 << 20  # bytes that wait to be stored, beyond which the network must wait
BATCH_BYTES = 2 << 20  # of messages that are taken at once: what is read of them takes many times as much
EACH = 512  # bytes that a message takes in memory besides what its device chose


class Queue:
    """Deliveries that the network thread puts and one reader takes.

    Three counters of bytes are each written by one thread alone, so that none needs a lock.
    """

    def __init__(self) -> None:
        self.in_hand: list[Delivery] = []  # taken and not yet acknowledged
        self.redelivered = 0  # messages that the broker marked as handed over before (DUP)
        self._deliveries: deque[Delivery] = deque()
        self._arrived = threading.Event()
        self._bytes_put = 0  # by the network thread
        self._bytes_dropped = 0  # by the network thread
        self._bytes_taken = 0  # by the reader
        self._bytes_of_the_past = 0  # how many had been put when a connection broke
        self._wanted_from = 0  # the generation before which everything comes again

    def put(self, delivery: Delivery) -> None:
        """Add *delivery* at the end. Called by the network thread."""
        if delivery.duplicate:
            self.redelivered += 1
        self._bytes_put += held(delivery) + EACH
        self._deliveries.append(delivery)
        if not self._arrived.is_set():
            self._arrived.set()

    def is_full(self) -> bool:
        """Return whether the open connection must wait; messages of an earlier one do not keep it silent."""
        gone = self._bytes_taken + self._bytes_dropped
        return self._bytes_put - max(gone, self._bytes_of_the_past) > MOST_QUEUED

    def end_connection(self, *, comes_again: bool) -> None:
        """Begin anew with the room for the next connection. Called by the network thread.

        What is queued is forgotten where all of it *comes_again*, and where broken connections would fill the memory.
        """
        if comes_again or self._queued_bytes > 2 * MOST_QUEUED:
            self._bytes_dropped += _size(self._pop(len(self._deliveries)))
        self._bytes_of_the_past = self._bytes_put

    def take(self, most: int, timeout: float) -> list[Delivery]:
        """Return what is queued, at most *most* messages and about BATCH_BYTES, after *timeout* seconds at most."""
        if not self._deliveries:
            self._arrived.clear()
            if not self._deliveries:
                self._arrived.wait(timeout)
        taken = self._pop(most, BATCH_BYTES)
        self._bytes_taken += _size(taken)
        self.in_hand = [delivery for delivery in taken if delivery.generation >= self._wanted_from]
        return self.in_hand

    def leave_out(self, before: int) -> None:
        """Have take() leave out what came over a connection of a generation *before* this one."""
        self.in_hand = []
        self._wanted_from = before

    @property
    def waiting(self) -> int:
        """Return how many messages are queued or in hand."""
        return len(self._deliveries) + len(self.in_hand)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of memory that these take: what their devices chose, and EACH for every one."""
        return self._queued_bytes + _size(self.in_hand)

    @property
    def oldest_waiting(self) -> float:
        """Seconds since the oldest of these came, 0 without any."""
        for waiting in (self.in_hand, self._deliveries):
            try:
                return max(0.0, time.time() - waiting[0].received_at)
            except IndexError:  # also when another thread was faster
                continue
        return 0.0

    @property
    def _queued_bytes(self) -> int:
        return self._bytes_put - self._bytes_taken - self._bytes_dropped

    def _pop(self, most: int, most_bytes: float = math.inf) -> list[Delivery]:
        """Return the first *most* messages, fewer where one of them reaches *most_bytes* together."""
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
    """Return the bytes that they take in memory."""
    return sum([held(delivery) for delivery in deliveries]) + EACH * len(deliveries)
