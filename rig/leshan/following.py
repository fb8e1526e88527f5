"""A follower of a Leshan server in a thread, whose reports a test looks at."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from devicehub.lwm2m.leshan.address import Address
from devicehub.lwm2m.leshan.follower import Follower
from devicehub.lwm2m.leshan.plans import wish
from devicehub.lwm2m.leshan.reports import Report
from devicehub.lwm2m.leshan.server import LeshanServer, ServerRefuses

SECONDS = 10
PATH = "/3303/0/5700"


class Following:
    """Follows the server at *url* until stop(). *lines* are those for the operator.

    While *gate* is not set, nothing is stored; *is_held* is true when the follower waits there with reports.
    """

    def __init__(self, url: str, *wishes: str) -> None:
        self.reports: list[Report] = []
        self.lines: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_held = False
        self.error: ServerRefuses | None = None
        server = LeshanServer(Address.parse(url))
        wanted = [wish(text) for text in wishes or ["3303/*/5700"]]
        self.follower = Follower(server, wanted, self._store, self.lines.append)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.follower.run()
        except ServerRefuses as error:
            self.error = error

    def _store(self, reports: Sequence[Report]) -> None:
        self.is_held = not self.gate.is_set()
        self.gate.wait()
        self.is_held = False
        self.reports += reports

    def waiting(self) -> list[type[Any]]:
        """Return the types of the events and answers that were read and not taken yet, in order."""
        return [type(arrived.content) for arrived in tuple(self.follower._intake._items)]

    def of(self, endpoint: str) -> list[str]:
        """Return the kind of each report of *endpoint*: the event of values, or `registration`, `update`, and so on."""
        contents = [report.content for report in self.reports if report.endpoint == endpoint]
        return [content.get("event") or next(iter(content)) for content in contents]

    def values(self, endpoint: str, path: str = PATH) -> list[Any]:
        """Return the values at *path* in order."""
        found = [report.content.get("values", {}) for report in self.reports if report.endpoint == endpoint]
        return [values[path]["value"] for values in found if path in values]

    def stop(self) -> None:
        """Stop the follower, and wait for its end."""
        self.gate.set()
        self.follower.stop()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), "the follower does not end"
