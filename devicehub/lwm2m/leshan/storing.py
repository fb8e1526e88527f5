"""Store the reports about endpoints through the pipeline of all messages, and retry while the database cannot."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog
from django.db import connections

from authsvc.errors import lacks_tables
from devicehub.backoff import Backoff
from devicehub.ingest.items import Item
from devicehub.ingest.pipeline import CANNOT_STORE, pipeline
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind
from devicehub.lwm2m.leshan.reports import Report
from devicehub.messages.message import Message, Outcome

log = structlog.get_logger(__name__)

RETRY = Backoff((0.5, 1, 2, 5))  # Seconds between attempts while the database cannot store.
GRACE = 3.0  # Seconds after the stop in which a database that is away may come back.
POLL = 0.2


class Storing:
    """Stores reports in order. *outcomes* counts the messages by outcome, *lost* those that were given up at the end.

    *identify* returns the device ids of endpoint names; *notify* gets the stored items; *is_stopping* is called while
    the database is away.
    """

    def __init__(
        self,
        kind: Kind,
        identify: Callable[[Collection[str]], Mapping[str, str]],
        notify: Callable[[Sequence[Item]], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._kind = kind
        self._identify = identify
        self._notify = notify
        self._is_stopping = is_stopping
        self._failures = 0
        self._gives_up_at: float | None = None
        self.outcomes: Counter[Outcome] = Counter()
        self.lost = 0

    def __call__(self, reports: Sequence[Report]) -> None:
        """Store *reports*. While the database cannot, try again; a part at a time, since one row may be the fault."""
        most = len(reports)
        while reports:
            batch = reports[:most]
            error = self._store(batch)
            if error is None:
                self._failures = 0
                reports, most = reports[most:], most * 2
            elif self._wait(error):
                most = max(1, len(batch) // 2)
            else:
                self.lost += len(reports)
                log.error("leshan.not_stored", messages=len(reports), hint="the database did not come back")
                return

    def _store(self, reports: Sequence[Report]) -> Exception | None:
        """Store *reports* in one transaction; return the error of a database that cannot."""
        is_stored = False

        def acknowledge() -> None:
            nonlocal is_stored
            is_stored = True

        try:
            outcomes = pipeline(self._messages(reports), acknowledge=acknowledge, notify=self._notify)
        except CANNOT_STORE as error:
            if is_stored or lacks_tables(error):
                raise  # Another attempt would store the messages twice, or fail for ever.
            return error
        self.outcomes.update(outcomes)
        return None

    def _messages(self, reports: Sequence[Report]) -> list[Message]:
        ids = self._identify({report.endpoint for report in reports})
        return [
            report.message(topics.build(self._kind, ids[report.endpoint], report.message_type))
            for report in reports
        ]

    def _wait(self, error: Exception) -> bool:
        """Pause and drop the broken connection; return False if the process ends before the database is back."""
        self._failures += 1
        pause = RETRY.after(self._failures)
        log.error("ingest.not_stored", error=f"{type(error).__name__}: {error}", retry_in=pause)
        connections.close_all()
        end = time.monotonic() + pause
        while time.monotonic() < end:
            if self._is_stopping():
                self._gives_up_at = self._gives_up_at or time.monotonic() + GRACE
                time.sleep(POLL)
                return time.monotonic() < self._gives_up_at
            time.sleep(POLL)
        return True
