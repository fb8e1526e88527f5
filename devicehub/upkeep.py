"""What an ingest worker does beside storing: small tasks at intervals, in a thread and a connection of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import connections

log = structlog.get_logger(__name__)

IDLE = 10.0  # seconds without a task that a database connection is kept open for


@dataclass
class Task:
    """Something to do every *seconds*, counted from its end; *due* by time.monotonic()."""

    name: str
    seconds: float
    run: Callable[[], object]
    due: float = 0.0


class Upkeep:
    """A thread that runs tasks, one at a time. A task that fails is logged, and runs again when it is due."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    @property
    def stopping(self) -> bool:
        """Whether stop() was called: a long task looks here between two steps."""
        return self._stop.is_set()

    def add(self, name: str, seconds: float, run: Callable[[], object]) -> None:
        """Have *run* called at the start and then every *seconds*. Before start()."""
        self._tasks.append(Task(name, seconds, run))

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Return when the running task has ended, or after *timeout* seconds. No other task is begun."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for task in self._tasks:
                    if task.due <= time.monotonic() and not self._stop.is_set():
                        self._do(task)
                pause = min((task.due for task in self._tasks), default=float("inf")) - time.monotonic()
                if pause > IDLE:
                    connections.close_all()  # of this thread
                self._stop.wait(min(max(pause, 0.0), threading.TIMEOUT_MAX))
        finally:
            connections.close_all()

    def _do(self, task: Task) -> None:
        try:
            task.run()
        except Exception:
            log.exception("upkeep.task_failed", task=task.name)
            connections.close_all()  # perhaps it is the connection that is broken
        task.due = time.monotonic() + task.seconds
