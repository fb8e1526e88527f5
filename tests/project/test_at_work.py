"""The site works on few requests at once, so that brokers find free threads and database connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from authsvc.asgi import MAX_AT_WORK, Entrance

pytestmark = pytest.mark.sqlite_only
MANY = 4 * MAX_AT_WORK


class Site:
    """Answers when *may_answer* is set, and ends its answer when *may_end* is set."""

    def __init__(self) -> None:
        self.arrived = self.answering = 0
        self.may_answer, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        self.arrived += 1
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.answering += 1
        await self.may_end.wait()
        await send({"type": "http.response.body"})


class Client:
    """Sends half a body at once, and the rest when *may_go_on* is set."""

    def __init__(self, *, waits: bool = False) -> None:
        self.may_go_on = asyncio.Event()
        self._rest = 2
        if not waits:
            self.may_go_on.set()

    async def receive(self) -> dict[str, Any]:
        """Return the next part of the body."""
        self._rest -= 1
        if self._rest == 0:
            await self.may_go_on.wait()
        return {"type": "http.request", "body": b"x", "more_body": self._rest > 0}

    async def send(self, _message: Any) -> None:
        """Drop the answer."""


def visit(entrance: Entrance, client: Client, path: str = "/") -> asyncio.Task[None]:
    """Send a request of *client* to *entrance*, and return its task."""
    scope = {"type": "http", "method": "POST", "path": path, "headers": (), "query_string": b""}
    return asyncio.create_task(entrance(scope, client.receive, client.send))  # type: ignore[arg-type]


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel *tasks*, and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_the_others_wait_for_their_turn():
    async def run() -> None:
        site = Site()
        entrance = Entrance(site)
        visits = [visit(entrance, Client()) for _ in range(MANY)]
        await settle()
        assert site.arrived == MAX_AT_WORK

        await end(visits[:3])  # their clients are gone
        await settle()
        assert site.arrived == MAX_AT_WORK + 3

        site.may_answer.set()
        await settle()
        assert site.arrived == MANY
        await end(visits)
        assert entrance._places._value == MAX_AT_WORK

    asyncio.run(run())


def test_an_answer_that_goes_on_takes_no_place():
    """The stream of a page lasts for minutes."""

    async def run() -> None:
        site = Site()
        site.may_answer.set()
        visits = [visit(Entrance(site), Client()) for _ in range(MANY)]
        await settle()
        assert site.answering == MANY
        await end(visits)

    asyncio.run(run())


def test_a_body_that_does_not_arrive_takes_no_place():
    async def run() -> None:
        site = Site()
        entrance = Entrance(site)
        slow = [visit(entrance, Client(waits=True)) for _ in range(MANY)]
        await settle()

        quick = visit(entrance, Client())
        await settle()

        assert site.arrived == 1
        await end([*slow, quick])

    asyncio.run(run())


def test_a_probe_does_not_wait_for_pages():
    async def run() -> None:
        entrance = Entrance(Site())
        visits = [visit(entrance, Client()) for _ in range(MANY)]
        await settle()

        await asyncio.wait_for(visit(entrance, Client(), "/healthz"), 10)

        await end(visits)

    asyncio.run(run())
