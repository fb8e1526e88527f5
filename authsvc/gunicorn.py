"""The configuration for gunicorn: `gunicorn -c python:authsvc.gunicorn config.asgi:application` serves everything."""

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

worker_class = "authsvc.serving.Worker"  # gunicorn's asgi worker, with limits of time and connections
worker_connections = 2048
asgi_lifespan = "on"
http_parser = "auto"
keepalive = 75  # brokers pool connections; go-auth's client takes one that just closed for an error
graceful_timeout = 10
control_socket_disable = True
accesslog = None  # a caller's token may stand in a path or a query
errorlog = "-"
loglevel = "warning"


def post_fork(_server: object, worker: Worker) -> None:
    """Have the worker close idle connections of brokers after 1 s when it stops, and not wait for them until killed.

    The worker checks once a second whether it should stop, so a stop takes up to 2 s and the last round of writing.
    """
    worker.cfg.set("graceful_timeout", 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # uvloop loses signals that arrive before it runs


def on_starting(server: Arbiter) -> None:
    """Make the block of recognised passwords, and the folder in which workers add up metrics, before the first fork."""
    from authsvc.logins import recognised

    recognised.make()
    if METRICS not in os.environ:
        server.devicehub_metrics = os.environ[METRICS] = tempfile.mkdtemp(prefix="devicehub-metrics-")


def on_exit(server: Arbiter) -> None:
    """Delete the folder of metrics that this server made."""
    if folder := getattr(server, "devicehub_metrics", None):
        shutil.rmtree(folder, ignore_errors=True)


def post_worker_init(worker: Any) -> None:
    """Log the findings of the system checks once, and keep all loaded objects out of garbage collection.

    Answers leave no cycles behind; with Python's own thresholds a full collection stops a busy worker for 50 ms.
    """
    # The first worker logs for all workers, and for those that replace it. Without Django there are no checks.
    if worker.age == 1 and apps.ready:
        from authsvc.operation import deployment  # needs Django's settings, which exist only now

        deployment.warn()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
    worker.loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, STOPPING)
