"""One thread a process for what must not be done on the path: written once a second, and once more at the end."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

import structlog
from django.db import Error, connection

log = structlog.get_logger(__name__)

SECONDS = 1.0

_jobs: list[Callable[[], object]] = []
_lock = threading.Lock()
_stop = threading.Event()
_thread: threading.Thread | None = None


def every_second(job: Callable[[], object]) -> None:
    """Run *job* from now on in each round. It raises django.db.Error when it must be run again."""
    _jobs.append(job)


def wake() -> None:
    """There is something to do. The thread starts with the first call, in the process that has it: a fork has none."""
    global _thread
    if _thread is None or not _thread.is_alive():
        with _lock:
            if _thread is None or not _thread.is_alive():
                _thread = threading.Thread(target=_rounds, name="authsvc background", daemon=True)
                _thread.start()


def stop() -> None:
    """End the thread and do what is left: at the end of the process, or of a test."""
    global _thread
    thread, _thread = _thread, None
    if thread is not None:
        _stop.set()
        thread.join(timeout=5)
        _stop.clear()
    _round()


def _rounds() -> None:
    while not _stop.wait(SECONDS):
        _round()


def _round() -> None:
    try:
        for job in _jobs:
            try:
                job()
            except (Error, OSError) as error:
                log.warning("background.not_written", job=job.__module__, error=type(error).__name__)
    finally:
        connection.close()


atexit.register(stop)
