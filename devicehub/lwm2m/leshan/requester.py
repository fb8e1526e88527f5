"""The threads that observe and read endpoints through a Leshan server, a bounded number at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from devicehub.lwm2m.leshan.intake import Intake, Replied
from devicehub.lwm2m.leshan.plans import Action, Step
from devicehub.lwm2m.leshan.server import Answer, LeshanServer, Result, ServerAway, ServerRefuses

log = structlog.get_logger(__name__)

THREADS = 16  # Endpoints with an open request; each waits for the slowest devices.
GO_ON = frozenset({Result.VALUES, Result.REFUSED})


class Series(NamedTuple):
    """The steps for one endpoint, which are taken one after the other."""

    endpoint: str
    registration_id: str
    steps: Sequence[Step]


class Requester:
    """Takes series of steps and puts the answers into *intake*. The roll keeps at most one series of an endpoint here.

    *may_be_requested* is called before each step: an endpoint that fell asleep or registered again gets no request.
    """

    def __init__(
        self,
        server: LeshanServer,
        intake: Intake,
        may_be_requested: Callable[[str, str], bool],
        threads: int = THREADS,
    ) -> None:
        self._server = server
        self._intake = intake
        self._may_be_requested = may_be_requested
        self._waiting: queue.SimpleQueue[Series | None] = queue.SimpleQueue()
        self._is_stopping = False
        self._failures = 0
        self._threads = [
            threading.Thread(target=self._run, name=f"leshan requester {number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def request(self, endpoint: str, registration_id: str, steps: Sequence[Step]) -> None:
        """Queue *steps* for *endpoint*."""
        self._waiting.put(Series(endpoint, registration_id, steps))

    def stop(self) -> None:
        """End the threads after their present requests."""
        self._is_stopping = True
        for _ in self._threads:
            self._waiting.put(None)

    def _run(self) -> None:
        while (series := self._waiting.get()) is not None and not self._is_stopping:
            try:
                self._take(series)
            except Exception:  # A bug with one endpoint must not end the thread.
                log.exception("leshan.bug", endpoint=series.endpoint)
                self._put(series, None, None, is_last=True)

    def _take(self, series: Series) -> None:
        for step in series.steps:
            if self._is_stopping or not self._may_be_requested(series.endpoint, series.registration_id):
                self._put(series, None, None, is_last=True)
                return
            answer = self._answer(series.endpoint, step)
            is_last = step is series.steps[-1] or answer is None or answer.result not in GO_ON
            self._put(series, step, answer, is_last=is_last)
            if is_last:
                return

    def _answer(self, endpoint: str, step: Step) -> Answer | None:
        try:
            if step.action is Action.READ:
                return self._server.read(endpoint, step.paths[0])
            return self._server.observe(endpoint, step.paths)
        except (ServerAway, ServerRefuses) as error:
            self._failures += 1
            if (
                self._failures & (self._failures - 1) == 0
            ):  # The first, second, fourth, and so on: there may be many.
                log.warning("leshan.no_answer", endpoint=endpoint, error=str(error), failures=self._failures)
            return None

    def _put(self, series: Series, step: Step | None, answer: Answer | None, *, is_last: bool) -> None:
        replied = Replied(series.endpoint, series.registration_id, step, answer, is_last)
        self._intake.put(replied, datetime.now(UTC), 1000 + (0 if answer is None else answer.size))
