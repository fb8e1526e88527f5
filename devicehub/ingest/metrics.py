"""Numbers of an ingest worker for Prometheus."""

from __future__ import annotations

from prometheus_client import start_http_server

from devicehub.ingest.worker import Worker
from devicehub.mqtt import Listener


def serve(host: str, port: int, listener: Listener, worker: Worker) -> None:
    """Answer scrapes at http://host:port/metrics from a thread of its own. Raises OSError, such as for a taken port."""
    start_http_server(port, host)
