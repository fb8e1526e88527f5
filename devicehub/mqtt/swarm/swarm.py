"""Many connections in one thread, for simulated devices.

A Swarm opens connections a few at a time, and opens lost ones again. asyncio reads and writes for all of them.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from devicehub.backoff import Backoff
from devicehub.mqtt.address import CONNECT_TIMEOUT, BrokerAddress, MqttError
from devicehub.mqtt.swarm.client import Counts, Owner, SwarmClient
from devicehub.mqtt.swarm.stream import connect, look_up

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # There is no uvloop for Windows.
    from asyncio import new_event_loop

FEW, MANY = 4, 64  # Connections that are being opened: at the start and after a failure, and at most.
LOOK_AFTER = 1.0  # Seconds between two checks of keep-alives.
LOOK_AGAIN = 0.02  # Seconds between two checks of an awaited condition.
HANG_UP = 1.0  # Seconds for the event loop to close connections.
SPARE_FILES = 64  # Open files that a process needs besides its connections.
PAUSES = Backoff.doubling(1, 30, spread=0.5)  # Seconds before a lost connection is opened again.

Answer = TypeVar("Answer")


class Swarm:
    """The clients of many owners, all in the event loop that enters it as a context.

    At most FEW connections are opened at the same time at first, and one more after each success, up to MANY: a broker
    must not ask the service about a whole fleet at once. Raise MqttError for an unknown host.
    An error in a task of the swarm ends the context with it.
    """

    def __init__(self, address: BrokerAddress, version: str) -> None:
        self.counts = Counts()
        self._address, self._version = address, version
        self._tls = ssl.create_default_context() if address.tls else None
        self._places = look_up(address)
        self._clients: list[SwarmClient] = []
        self._gate = _Gate()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self.start(self._look_after())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.settle()
        for client in self._clients:
            client.hang_up()
        await self._closed(time.monotonic() + HANG_UP)
        await self._group.__aexit__(kind, error, trace)

    def add(self, owner: Owner, username: str, password: str, **options: Any) -> SwarmClient:
        """Return a new client, which is connected when its turn comes; *options* are those of SwarmClient."""
        at = self._address
        address = BrokerAddress(at.host, at.port, username, password, at.tls)
        client = SwarmClient(address, self._version, self.counts, owner, **options)
        self._clients.append(client)
        self.start(self._keep_connected(client))
        return client

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in a task of its own, until settle()."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def outstanding(self) -> int:
        """The number of messages on open connections that the broker has not acknowledged yet."""
        return sum(len(client.unacknowledged) for client in self._clients)

    def settle(self) -> None:
        """End all tasks and open no more connections; open ones stay."""
        for task in self._tasks:
            task.cancel()

    async def acknowledged(self, end: float) -> None:
        """Wait until all published messages are acknowledged, at most until *end*, by time.monotonic()."""
        await _until(lambda: not self.outstanding, end)

    async def close(self, patience: float) -> None:
        """End all connections, within *patience* seconds at most.

        A client whose messages are all acknowledged sends DISCONNECT; for the others the broker publishes the will.
        """
        self.settle()
        end = time.monotonic() + patience
        for client in self._clients:
            if client.unacknowledged or time.monotonic() > end:
                client.hang_up()
            else:
                client.disconnect()
        await self._closed(end)

    async def _closed(self, end: float) -> None:
        await _until(lambda: not any(client.is_open for client in self._clients), end)

    async def _keep_connected(self, client: SwarmClient) -> None:
        """Connect *client*, and again after each failure or loss, with a longer pause each time."""
        failures = 0
        while True:
            try:
                async with self._gate:
                    await self._connect(client)
                failures = 0
                client.owner.ready()
                reason = await client.loss()
            except MqttError as error:
                reason = str(error)
            client.owner.lost(reason)
            failures += 1
            await asyncio.sleep(PAUSES.after(failures))

    async def _connect(self, client: SwarmClient) -> None:
        """Return once *client* is connected and subscribed. Raise MqttError if that fails or takes too long."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await client.begin(await connect(self._address, self._places, self._tls))
        except TimeoutError as error:
            client.hang_up()
            raise MqttError(
                f"{self._address.host}:{self._address.port} did not answer within {CONNECT_TIMEOUT:g} s: the service "
                f"that it asks may be slow or away, or it does not speak DEVICEHUB_MQTT_VERSION={self._version}"
            ) from error
        except BaseException:
            client.hang_up()
            raise

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AFTER)
            for client in self._clients:
                client.look_after()


class _Gate:
    """A context for few tasks at a time: FEW at first and after a failure, one more for each success, MANY at most."""

    def __init__(self) -> None:
        self._inside, self._allowed = 0, FEW
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._inside < self._allowed)
            self._inside += 1

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._inside -= 1
        self._allowed = min(self._allowed + 1, MANY) if kind is None else FEW
        async with self._changed:
            self._changed.notify(2)  # One place is free, and one may be new.


async def _until(condition: Callable[[], bool], end: float) -> None:
    """Wait until *condition* holds, at most until *end*, by time.monotonic()."""
    while not condition() and time.monotonic() < end:  # noqa: ASYNC110 - an event would be set for every message
        await asyncio.sleep(LOOK_AGAIN)


def run(main: Coroutine[Any, Any, Answer]) -> Answer:
    """Run *main* on an event loop of its own, the fastest one that is installed, and return its result."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def allow_files(connections: int) -> None:
    """Raise the soft limit of open files for so many *connections*. Raise MqttError if the hard limit is too low."""
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise MqttError(
            f"{connections} connections need {needed} open files, and the hard limit (`ulimit -Hn`) is {hard}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
