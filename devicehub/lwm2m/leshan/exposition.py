"""The metrics of a follower of a Leshan server, for `listen_leshan --metrics PORT`."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from devicehub.lwm2m.leshan.process import Process


class OfFollower(Collector):
    """The stream, the queue and the endpoints at the time of a scrape."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of this moment."""
        follower = self._process.follower
        yield GaugeMetricFamily(
            "devicehub_leshan_connected", "Whether the stream of events is open.", follower.is_connected
        )
        yield GaugeMetricFamily(
            "devicehub_leshan_endpoints", "Endpoints that are registered and observed.", len(follower.roll)
        )
        yield GaugeMetricFamily(
            "devicehub_leshan_waiting_events", "Events and answers that are not stored.", follower.waiting
        )
        yield CounterMetricFamily(
            "devicehub_leshan_unreadable",
            "Events and registrations that could not be read.",
            follower.malformed,
        )
        yield CounterMetricFamily(
            "devicehub_leshan_reconnects", "Streams of events after the first.", max(0, follower.reconnects)
        )
