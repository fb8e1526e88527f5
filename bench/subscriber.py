"""The reference of `script/bench ingest`: a paho subscriber that acknowledges every message and does nothing else.

`python -m bench.subscriber PORT TOPIC_FILTER` acknowledges by hand, like an ingest worker, with the same receive
maximum. For each COUNT on standard input it prints the time when it had acknowledged COUNT more messages.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devicehub.mqtt import RECEIVE_MAXIMUM


class Subscriber:
    """Counts acknowledged messages; *reached* gets the time when the wanted count is reached."""

    def __init__(self, port: int, topic_filter: str) -> None:
        self._topic_filter = topic_filter
        self._acknowledged = self._wanted = 0
        self.reached: queue.SimpleQueue[float] = queue.SimpleQueue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=paho.MQTTv5)
        self.client.manual_ack_set(True)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: print("subscribed", flush=True)
        self.client.on_message = self._on_message
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        self.client.connect("127.0.0.1", port, clean_start=True, properties=properties)

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._topic_filter, 1)

    def want(self, count: int) -> None:
        """Put the time into *reached* after *count* more messages."""
        self._wanted += count

    def _on_message(self, client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        client.ack(message.mid, message.qos)
        self._acknowledged += 1
        if self._acknowledged == self._wanted:
            self.reached.put(time.time())


def main() -> None:
    """Run the subscriber until standard input ends."""
    subscriber = Subscriber(int(sys.argv[1]), sys.argv[2])
    # The network loop has the main thread for itself, so that no other thread wakes it.
    threading.Thread(target=_answer, args=(subscriber,), daemon=True).start()
    subscriber.client.loop_forever()


def _answer(subscriber: Subscriber) -> None:
    for line in sys.stdin:
        subscriber.want(int(line))
        print("wanted", flush=True)
        print(subscriber.reached.get(), flush=True)
    subscriber.client.disconnect()


if __name__ == "__main__":
    main()
