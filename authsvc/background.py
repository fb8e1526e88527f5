"""One thread a process for what must not be done on the path: written once a second, and once more at the end."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

import structlog
from django.db import Error, connection

log = structlog.get_logger(__name__)

SECONDS = 1.0
STOP_SECONDS = 0.5  # for the last round: a database that is locked or away holds up no stop

_jobs: list[Callable[[], object]] = []
_lock = threading.Lock()


class _Rounds(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="authsvc background", daemon=True)
        self.last = threading.Event()

    def run(self) -> None:
        while not self.last.wait(SECONDS):
            _round()
        _round()


_thread: _Rounds | None = None


def every_second(job: Callable[[], object], *, first: bool = False) -> None:
    """Run *job* from now on in each round. It raises django.db.Error when it must be run again.

    *first*: before those that wait for the database.
    """
    _jobs.insert(0 if first else len(_jobs), job)


def wake() -> None:
    """There is something to do. The thread starts with the first call, in the process that has it: a fork has none."""
    global _thread
    if _thread is None or not _thread.is_alive():
        with _lock:
            if _thread is None or not _thread.is_alive():
                _thread = _Rounds()
                _thread.start()


def stop() -> None:
    """Do what is left, and end the thread: at the end of the process, or of a test.

    What the thread cannot write within STOP_SECONDS is given up.
    """
    global _thread
    thread, _thread = _thread, None
    if thread is None or not thread.is_alive():
        _round()
        return
    thread.last.set()
    thread.join(STOP_SECONDS)
    if thread.is_alive():
        log.warning("background.given_up")


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
