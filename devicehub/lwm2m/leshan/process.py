"""The process that follows a Leshan server: the follower, the storing, and the notifications of hooks."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from devicehub.ingest.announcer import Announcer
from devicehub.ingest.durability import settle
from devicehub.ingest.items import Item
from devicehub.lwm2m import adoption
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.leshan.address import Address
from devicehub.lwm2m.leshan.follower import Follower
from devicehub.lwm2m.leshan.plans import Wish
from devicehub.lwm2m.leshan.server import LeshanServer
from devicehub.lwm2m.leshan.storing import Storing
from devicehub.lwm2m.names import device_ids
from devicehub.messages.message import Outcome
from devicehub.worker import metrics

log = structlog.get_logger(__name__)

GRACE = 12.0  # Seconds from stop() until the process ends without waiting for its database.
POLL = 0.2


def identify(endpoint_names: Collection[str]) -> Mapping[str, str]:
    """Return the device ids of *endpoint_names*, after unknown ones are adopted if the settings allow it."""
    adoption.adopt(endpoint_names)
    return device_ids(endpoint_names)


class Process:
    """Follows the Leshan server at *address* from run() until stop(); *report* gets lines for the operator."""

    def __init__(
        self, address: Address, wishes: Sequence[Wish], report: Callable[[str], None] = lambda _: None
    ) -> None:
        self._announcer: Announcer | None = None  # Its thread begins with run().
        self._storing = Storing(KIND, identify, self._notify, lambda: self.follower.stopping)
        self.follower = Follower(LeshanServer(address), wishes, self._storing, report)
        self._has_ended = False

    @property
    def outcomes(self) -> Counter[Outcome]:
        """The number of messages by outcome."""
        return self._storing.outcomes

    @property
    def lost(self) -> int:
        """The number of messages that were not stored before the end, because the database was away."""
        return self._storing.lost

    def stop(self) -> None:
        """Have run() store the events that were read, and return. A signal handler may call this."""
        if self._announcer is not None:
            self._announcer.stopping = True
        self.follower.stop()

    def run(self) -> None:
        """Follow the server until stop(). Raise ServerRefuses if it refuses us from the beginning."""
        settle()
        self._announcer = Announcer()
        threading.Thread(target=self._see_to_the_end, name="last resort", daemon=True).start()
        try:
            self.follower.run()
        finally:
            self._announcer.stop()
            self._has_ended = True

    def _notify(self, batch: Sequence[Item]) -> None:
        now = time.time()
        metrics.stored(batch, now, now)
        if self._announcer is not None:
            self._announcer.notify(batch)

    def _see_to_the_end(self) -> None:
        """End the process if it does not stop within GRACE seconds, because its database does not answer."""
        while not self.follower.stopping and not self._has_ended:
            time.sleep(POLL)
        end = time.monotonic() + GRACE
        while not self._has_ended:
            if time.monotonic() > end:
                log.error("leshan.ended", hint="the database did not answer; the last events are not stored")
                os._exit(1)
            time.sleep(POLL)
