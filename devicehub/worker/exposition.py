"""The metrics of a process at a port of its own: its counters, and its state at the time of a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import disable_created_metrics, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from devicehub.mqtt import Listener
from devicehub.worker.loop import Worker
from devicehub.worker.metrics import REGISTRY


def serve(host: str, port: int, seen: Collector) -> Callable[[], object]:
    """Answer scrapes at http://host:port/metrics from a thread of its own; return the function that ends it.

    *seen* collects the state of the process. Raise OSError, for example for a port that is taken.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # A counter has no series for its start time.
    server, thread = start_http_server(port, addr=host, registry=REGISTRY)
    REGISTRY.register(seen)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()
        REGISTRY.unregister(seen)

    return end


class OfWorker(Collector):
    """The queue, the connection, and the broker's own numbers of an ingest worker, at the time of a scrape."""

    def __init__(self, listener: Listener, worker: Worker) -> None:
        self._listener, self._worker = listener, worker

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of this moment."""
        listener = self._listener
        yield _gauge("connected", "Whether the worker is connected to its broker.", listener.is_connected)
        yield _gauge("waiting_messages", "Messages received and not yet acknowledged.", listener.waiting)
        yield _gauge("waiting_bytes", "Bytes of memory of the waiting messages.", listener.waiting_bytes)
        yield _gauge("oldest_waiting_seconds", "Age of the oldest waiting message.", listener.oldest_waiting)
        yield _counter("redelivered", "Messages that the broker sent again (DUP).", listener.redelivered)
        yield _counter("reconnects", "Connections after the first.", listener.reconnects)
        yield _counter(
            "not_told",
            "Messages stored without a call of their hooks, because a hook does not return.",
            self._worker.announcer.unannounced,
        )
        drops = GaugeMetricFamily(
            "devicehub_broker_dropped_messages",
            "Numbers that the broker publishes at the topics of DEVICEHUB_MQTT_DROPS.",
            labels=["topic"],
        )
        for topic, number in listener.broker_drops.items():
            drops.add_metric([topic], number)
        yield drops


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"devicehub_ingest_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"devicehub_ingest_{name}", text, value)
