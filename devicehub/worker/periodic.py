"""Runs the tasks of an ingest worker at their intervals, each in a thread and a connection of its own.

One that waits, for a broker or a hook, does not hold up the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import structlog
from django.db import InterfaceError, OperationalError, connections

from devicehub.db.batches import Stopped
from devicehub.worker import tasks
from devicehub.worker.tasks import Context

log = structlog.get_logger(__name__)

IDLE = 10.0  # seconds until the next run from which on the database connection is closed meanwhile


@dataclass
class _Repeated:
    """A task and its last failure."""

    name: str
    seconds: float
    run: Callable[[], object]
    trouble: str = ""  # why it failed the last time


class PeriodicWork:
    """Runs tasks until it is stopped. A task that fails runs again when it is due.

    Why is logged once, and not again while the same goes on: some run every second, and an outage may take hours.
    """

    def __init__(self, stopped: threading.Event | None = None) -> None:
        self.stopped = stopped or threading.Event()  # set by stop()
        self._threads: list[threading.Thread] = []

    @property
    def stopping(self) -> bool:
        """Whether stop() was called: a long task looks here between two steps."""
        return self.stopped.is_set()

    @classmethod
    def of(cls, context: Context) -> Self:
        """Return the registered tasks, made for the worker of *context*; they are not started."""
        made = cls(context.stopped)
        for task in tasks.registered():
            run = task.bind(context)
            if run is not None:
                made.add(task.name, task.seconds, run)
        return made

    def add(self, name: str, seconds: float, run: Callable[[], object]) -> None:
        """Have *run* called at the start and then every *seconds*. Before start()."""
        task = _Repeated(name, seconds, run)
        self._threads.append(threading.Thread(target=self._repeat, args=(task,), name=name, daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Return when the running tasks have ended, or after *timeout* seconds. No other is begun."""
        self.stopped.set()
        end = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _repeat(self, task: _Repeated) -> None:
        try:
            while not self.stopped.is_set():
                self._do(task)
                if task.seconds > IDLE:
                    connections.close_all()  # of this thread
                self.stopped.wait(min(task.seconds, threading.TIMEOUT_MAX))
        finally:
            connections.close_all()

    def _do(self, task: _Repeated) -> None:
        try:
            task.run()
        except Stopped:
            return  # it was at work when stop() was called
        except BaseException as error:  # a receiver that calls sys.exit() must not end the task for good
            self._report(task, error)
            connections.close_all()  # perhaps it is the connection that is broken
        else:
            task.trouble = ""

    def _report(self, task: _Repeated, error: BaseException) -> None:
        trouble = f"{type(error).__name__}: {error}"
        if trouble == task.trouble:
            return
        task.trouble = trouble
        # Where it was found that the database is away is no help.
        is_away = isinstance(error, OperationalError | InterfaceError)
        log.error("worker.task_failed", task=task.name, error=trouble, exc_info=not is_away)
