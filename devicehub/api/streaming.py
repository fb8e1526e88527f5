"""Answers of any length: under ASGI a thread of their own makes them, under WSGI the thread of the request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest


class Source(Protocol):
    """An iterator over the parts of an answer, which uses the database."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def close(self) -> None: ...
    def interrupt(self) -> None:
        """End the statement that runs now; it is called from another thread."""


def content(request: HttpRequest, source: Source) -> Source | Stream:
    """Return *source* in the form that the server of *request* streams; it closes it."""
    return Stream(source) if isinstance(request, ASGIRequest) else source


class Stream:
    """An asynchronous iterator over *source*, which runs in a thread and on a connection of its own.

    A client that goes away ends the statement that runs, and the transaction.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="export")
        self._is_closed = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            part: Any = await loop.run_in_executor(self._thread, next, self._source, None)
        except BaseException:  # Also for a cancelled task.
            self.close()
            raise
        if part is None:
            raise StopAsyncIteration
        return part

    def close(self) -> None:
        """End the query without a wait for its thread, or for a database that does not answer."""
        if self._is_closed:
            return
        self._is_closed = True
        # PostgreSQL is told by a connection of its own, and the event loop answers brokers meanwhile.
        threading.Thread(target=self._source.interrupt, name="interrupt", daemon=True).start()
        self._thread.submit(self._end)
        self._thread.shutdown(wait=False)

    def _end(self) -> None:
        try:
            self._source.close()
        finally:
            connections.close_all()
