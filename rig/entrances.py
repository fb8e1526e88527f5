"""The two entrances for questions, in front of Django and inside it, and the real wake-up call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from django.core.asgi import get_asgi_application

from authsvc import background
from authsvc.asgi import Application, Entrance
from authsvc.dialects.base import Headers, Reply

SITE = get_asgi_application()
ENTRANCES = {"asgi": Entrance(SITE), "django": SITE}
WAKE = background.wake  # a fixture replaces it in its module for each test

# The headers that clients of httpx add.
CLIENT_HEADERS = {
    "accept": "*/*",
    "accept-encoding": "gzip, deflate",
    "connection": "keep-alive",
    "user-agent": "httpx",
}
# For tests about HTTP itself. Other tests send their questions to the ASGI entrance alone: both entrances give the
# gateway the same Request (tests/authsvc/serving/test_entrances.py), so a decision cannot fail in one of them only.
# Both send the same SQL, so one of them is enough on PostgreSQL.
both_entrances = pytest.mark.parametrize(
    "entrance", ["asgi", pytest.param("django", marks=pytest.mark.sqlite_first)]
)


async def send_request(
    application: Application, method: str, url: str, *, peer: str = "10.1.2.3", **options: Any
) -> httpx.Response:
    """Send one request from the address *peer* to *application* and return the reply.

    A client of httpx, or its transport, would take longer than the ASGI entrance does.
    """
    headers = httpx.Headers(CLIENT_HEADERS)
    headers.update(options.pop("headers", None))
    url = f"http://localhost{url}" if url.startswith("/") else url
    sent = httpx.Request(method, url, headers=headers, **options)
    exchange = Exchange(
        pieces(sent.read()),
        path=sent.url.path,
        method=sent.method,
        scheme=sent.url.scheme,
        raw_path=sent.url.raw_path.split(b"?")[0],
        query_string=sent.url.query,
        headers=[(name.lower(), value) for name, value in sent.headers.raw],
        client=(peer, 40000),
        server=(sent.url.host, sent.url.port),
    )
    await application(exchange.scope, exchange._receive, exchange._send)
    begun = exchange.sent[0]
    parts = [] if method == "HEAD" else [message.get("body", b"") for message in exchange.sent[1:]]
    body = httpx.ByteStream(b"".join(parts))
    reply = httpx.Response(begun["status"], headers=begun.get("headers", []), stream=body, request=sent)
    reply.read()
    return reply


class Exchange:
    """One HTTP request exactly as it is given, and the messages that an application answers.

    A client library would repair or refuse much of what arrives here broken.
    """

    def __init__(self, messages: Sequence[dict[str, Any]], **scope: Any) -> None:
        self._messages = iter(messages)
        path = scope["path"]
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "raw_path": quote(path, errors="surrogatepass").encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "client": ("10.1.2.3", 40000),
            "server": ("localhost", 8000),
        } | scope
        self.sent: list[Any] = []

    async def run(self, application: Application) -> Reply:
        """Send the request to *application* and return its reply."""
        await application(self.scope, self._receive, self._send)
        content = b"".join(message.get("body", b"") for message in self.sent[1:])
        return Reply(self.sent[0]["status"], content, dict(self.headers).get("content-type", ""))

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the reply, with names in lower case."""
        pairs: Headers = self.sent[0]["headers"]
        return [(name.decode().lower(), value.decode()) for name, value in pairs]

    async def _receive(self) -> dict[str, Any]:
        message = next(self._messages, None)
        if message is None:
            await asyncio.sleep(3600)  # The client stays connected and sends nothing more.
            raise AssertionError
        return message

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


def pieces(body: bytes, size: int | None = None) -> list[dict[str, Any]]:
    """Return the messages of *body*, in pieces of *size* bytes."""
    size = size or len(body) or 1
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]
    messages[-1]["more_body"] = False
    return messages
