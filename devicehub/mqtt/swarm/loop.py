"""Many connections in one thread, without a thread of their own: simulated devices.

A Loop opens connections a few at a time, reads and writes for all of them, and opens again what was lost.
"""

from __future__ import annotations

import heapq
import itertools
import random
import resource
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from devicehub.mqtt.address import CONNECT_TIMEOUT, BrokerAddress, MqttError
from devicehub.mqtt.swarm.client import Link, Owner
from devicehub.mqtt.swarm.connecting import Opening

FEW, MANY = 4, 64  # connections under way: at the start and after a failure, and at most
SLICE = 0.05  # seconds of timers before the network has its turn again
LOOK_AFTER = 0.5  # seconds between two looks at keep-alives and at what takes too long
SPARE_FILES = 64  # open files that a process needs besides its connections
BACKOFF = (1.0, 30.0)  # seconds before a lost connection is opened again: at first, and at most


class Loop:
    """What drives many Links. All of it runs in the thread that calls turn(), the calls to owners included.

    Connections under way are at most FEW at first and one more for each that succeeds, up to MANY: a broker
    that asks us about logins is not asked about a whole fleet at once. MqttError for a host nobody knows.
    """

    def __init__(self, address: BrokerAddress, version: str, dice: random.Random | None = None) -> None:
        self.address, self.version = address, version
        self.acknowledged = self.refused = self.published = self.lost = 0
        self.connected = 0  # links that are ready
        self.tls = ssl.create_default_context() if address.tls else None
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self.eager: list[Link] = []  # have something to write
        self._dice = dice or random.Random()  # noqa: S311 - spreads what comes back
        self._links: list[Link] = []
        self._line: deque[Link] = deque()  # wait to be opened
        self._under_way: dict[Link, float] = {}  # with the time by which they must be ready
        self._openings: dict[Link, Opening] = {}
        self._allowed = float(FEW)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._next_look = 0.0
        self._settled = False
        try:
            self.places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise MqttError(f"{address.host} is not the name of a host") from error
        except OSError as error:
            raise MqttError(f"no connection to {address.host}:{address.port} ({error})") from error

    def link(self, owner: Owner, username: str, password: str, **options: Any) -> Link:
        """A new client, to be opened as soon as its turn has come; *options* are those of Link."""
        link = Link(self, owner, username, password, **options)
        self._links.append(link)
        self._line.append(link)
        return link

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call in *seconds*, or as soon after as there is time."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))

    def turn(self, timeout: float) -> None:
        """Open, write, wait at most *timeout* seconds for the network, read, and call what is due."""
        self._open_some()
        self.flush()
        if self._timers:
            timeout = min(timeout, max(0.0, self._timers[0][0] - time.monotonic()))
        for key, events in self.selector.select(timeout):
            key.data(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now and time.monotonic() - now < SLICE:
            heapq.heappop(self._timers)[2]()
        if now >= self._next_look:
            self._next_look = now + LOOK_AFTER
            self._look_after(now)
        self.flush()

    def flush(self) -> None:
        """Hand what is to be written to the sockets, as far as they take it."""
        eager, self.eager = self.eager, []
        for link in eager:
            link.write()

    @property
    def outstanding(self) -> int:
        """Messages on open connections that the broker has not acknowledged yet."""
        return sum(len(link.unacknowledged) for link in self._links)

    def settle(self) -> None:
        """Open nothing any more and forget what is due: the end has begun."""
        self._settled = True
        self._timers.clear()
        self._line.clear()
        for link in list(self._under_way):
            self._forget(link)
            link.hang_up()

    def close(self, timeout: float) -> None:
        """End all connections, at most *timeout* seconds long.

        Who has everything acknowledged says goodbye; for all others the broker publishes the will.
        """
        self.settle()
        end = time.monotonic() + timeout
        for link in self._links:
            if link.unacknowledged or time.monotonic() > end:
                link.hang_up()
            else:
                link.disconnect()
        while any(link.is_open for link in self._links) and time.monotonic() < end:
            self.turn(0.05)
        for link in self._links:
            link.hang_up()
        self.selector.close()

    # What links and openings report

    def opened(self, link: Link, connection: socket.socket) -> None:
        del self._openings[link]
        link.begin(connection)

    def succeeded(self, link: Link) -> None:
        self._forget(link)
        self._allowed = min(self._allowed + 1, MANY)

    def failed(self, link: Link, reason: str) -> None:
        """*link* has no connection: it waits, longer each time and never as long as the others, and tries again."""
        if link in self._under_way:
            self._allowed = FEW
        self._forget(link)
        if self._settled:
            return
        first, most = BACKOFF
        wait = min(most, first * 2.0 ** min(link.failures, 10)) * self._dice.uniform(0.5, 1.0)
        link.failures += 1
        self.call_later(wait, lambda: self._line.append(link))
        link.owner.lost(reason)

    def _forget(self, link: Link) -> None:
        self._under_way.pop(link, None)
        opening = self._openings.pop(link, None)
        if opening is not None:
            opening.close()

    def _open_some(self) -> None:
        while self._line and len(self._under_way) < int(self._allowed):
            link = self._line.popleft()
            self._under_way[link] = time.monotonic() + CONNECT_TIMEOUT
            opening = self._openings[link] = Opening(self, link)
            opening.start()

    def _look_after(self, now: float) -> None:
        for link in [link for link, end in self._under_way.items() if end <= now]:
            link.hang_up()
            self.failed(
                link,
                f"{self.address.host}:{self.address.port} did not answer within {CONNECT_TIMEOUT:g} s: the service "
                f"that it asks may be slow or away, or it does not speak DEVICEHUB_MQTT_VERSION={self.version}",
            )
        for link in self._links:
            link.look_after()


def allow_files(connections: int) -> None:
    """Raise the soft limit of open files for so many *connections*. MqttError where the hard one is too low."""
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise MqttError(
            f"{connections} connections need {needed} open files, and the hard limit (`ulimit -Hn`) is {hard}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
