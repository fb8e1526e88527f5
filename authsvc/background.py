"""One background thread per process for writes that must not delay an answer: once a second, and at the end."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Sequence

import structlog
from django.db import Error, connection

log = structlog.get_logger(__name__)

SECONDS = 1.0
STOP_SECONDS = 0.5  # For the last round, so that a locked or unreachable database does not delay the stop.

_jobs: list[Callable[[], object]] = []
_last_jobs: list[Callable[[], object]] = []
_lock = threading.Lock()


class _Rounds(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="authsvc background", daemon=True)
        self.last = threading.Event()

    def run(self) -> None:
        while not self.last.wait(SECONDS):
            _round()
        _round(_last_jobs)


_thread: _Rounds | None = None


def every_second(job: Callable[[], object], *, first: bool = False) -> None:
    """Run *job* in each round from now on. It raises django.db.Error if it must be run again.

    *first*: run it before the jobs that wait for the database.
    """
    _jobs.insert(0 if first else len(_jobs), job)


def at_the_end(job: Callable[[], object]) -> None:
    """Run *job* before the others in the last round, for a job that otherwise collects for longer than a second."""
    _last_jobs.append(job)


def wake() -> None:
    """Start the thread if it does not run in this process, as after a fork. Call this when there is work."""
    global _thread
    if _thread is None or not _thread.is_alive():
        with _lock:
            if _thread is None or not _thread.is_alive():
                _thread = _Rounds()
                _thread.start()


def stop() -> None:
    """Run a last round and stop the thread, at the end of the process or of a test.

    Rows that are not written within STOP_SECONDS are lost.
    """
    global _thread
    thread, _thread = _thread, None
    if thread is None or not thread.is_alive():
        _round(_last_jobs)
        return
    thread.last.set()
    thread.join(STOP_SECONDS)
    if thread.is_alive():
        log.warning("background.given_up")


def _round(before: Sequence[Callable[[], object]] = ()) -> None:
    try:
        for job in (*before, *_jobs):
            try:
                job()
            except (Error, OSError) as error:
                log.warning("background.not_written", job=job.__module__, error=type(error).__name__)
    finally:
        connection.close()


atexit.register(stop)
