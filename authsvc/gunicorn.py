"""The configuration for gunicorn: `gunicorn -c python:authsvc.gunicorn config.asgi:application` serves the site."""

import gc
import os
import shutil
import signal
import tempfile
from typing import Any

from django.apps import apps
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

METRICS = "AUTHSVC_METRICS_DIR"
STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}

worker_class = "authsvc.serving.Worker"  # gunicorn's ASGI worker with limits of time and connections.
worker_connections = 2048
asgi_lifespan = "on"
http_parser = "auto"
keepalive = 75  # Brokers pool connections; go-auth reports one that was just closed as an error.
graceful_timeout = 10
control_socket_disable = True
accesslog = None  # A caller's token may be in a path or a query.
errorlog = "-"
loglevel = "warning"


def post_fork(_server: object, worker: Worker) -> None:
    """Make a stopping worker close idle connections of brokers after 1 s instead of waiting for them until killed.

    The worker checks once a second whether it should stop, so a stop takes up to 2 s and the last round of writing.
    """
    worker.cfg.set("graceful_timeout", 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # uvloop loses signals that arrive before it runs.


def on_starting(server: Arbiter) -> None:
    """Create the block of recognised passwords, and the folder of the workers' metrics, before the first fork."""
    from authsvc.logins import recognised

    recognised.make()
    if METRICS not in os.environ:
        server.devicehub_metrics = os.environ[METRICS] = tempfile.mkdtemp(prefix="devicehub-metrics-")


def on_exit(server: Arbiter) -> None:
    """Delete the folder of metrics that this server created."""
    if folder := getattr(server, "devicehub_metrics", None):
        shutil.rmtree(folder, ignore_errors=True)


def post_worker_init(worker: Any) -> None:
    """Log the findings of the system checks once, and exclude all loaded objects from garbage collection.

    Answers do not create cycles. With the default thresholds a full collection stops a busy worker for 50 ms.
    """
    # The first worker logs for all workers and their replacements. Without Django there are no checks.
    if worker.age == 1 and apps.ready:
        from authsvc.operation import deployment  # Needs Django's settings, which exist only now.

        deployment.warn()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
    worker.loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, STOPPING)
