"""The thread that queries for all open streams of this process, with one connection to the database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections

Result = TypeVar("Result")

executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="streams")


async def run(call: Callable[[], Result]) -> Result:
    """Run *call* in the thread of the streams, with its connection to the database, and return the result."""

    def within() -> Result:
        close_old_connections()
        return call()

    return await sync_to_async(within, thread_sensitive=False, executor=executor)()


def rest() -> None:
    """Close the connection of the thread; the next call opens one again."""
    executor.submit(connections.close_all)
