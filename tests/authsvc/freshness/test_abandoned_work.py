"""A read that is given up: a connection that it made meanwhile is closed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
import pytest
from django.db import connections

from authsvc.freshness import reader

pytestmark = pytest.mark.postgresql_only


@pytest.fixture
def made():
    """Return the list of the connections that work makes, each of which must be closed at the end."""
    found = []
    yield found
    assert found
    assert [connection for connection in found if not connection.closed] == []


async def _stubborn(made, gate):
    """Connect, and end with the connection in spite of a cancellation, as psycopg does if it comes late."""
    arguments = reader.connection_arguments(connections.settings["default"])
    made.append(await psycopg.AsyncConnection.connect(**arguments, autocommit=True))
    with suppress(asyncio.CancelledError):
        await gate.wait()
    return made[-1]


@pytest.mark.django_db
def test_a_connection_that_comes_too_late_is_closed(made):
    """The work ends after the time of its caller."""

    async def late():
        gate = asyncio.Event()
        with pytest.raises(reader.DatabaseAway):
            await reader.in_time(_stubborn(made, gate), 0.3)
        while reader._abandoned:
            await asyncio.sleep(0.01)

    asyncio.run(late())


@pytest.mark.django_db
def test_a_connection_of_a_cancelled_caller_is_closed(made):
    """The work is done when its caller is cancelled, before it could take the result."""

    async def cancelled():
        gate = asyncio.Event()
        gate.set()
        caller = asyncio.ensure_future(reader.in_time(_stubborn(made, gate), 5))
        while not made:
            await asyncio.sleep(0)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
        while reader._abandoned:
            await asyncio.sleep(0.01)

    asyncio.run(cancelled())
