"""The ASGI entrance: questions are answered in front of Django, everything else passes through to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import cache
from typing import Any

from authsvc import background, changes, gateway, metrics, readiness, verifier
from authsvc.dialects.base import MAX_BODY, Headers, Reply, Request

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]  # each framework types its own messages

PREFIX = "/mqtt/"
METHODS = frozenset({"POST", "PUT", "GET"})
NOT_FOUND = Reply(404, b'{"error":"no such question"}')
NOT_ALLOWED = Reply(405, b'{"error":"ask with POST, PUT or GET"}')

# What operators and their probes ask, by path.
OPERATION = {"/healthz": readiness.alive, "/readyz": readiness.report, "/metrics": metrics.report}


class Entrance:
    """Wraps the ASGI application of the site."""

    def __init__(self, site: Application) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path.startswith(PREFIX):
                await _send(send, await _answer(scope, receive, path))
                return
            if path in OPERATION:
                await _body(receive)
                await _send(send, await OPERATION[path]())
                return
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        await self._site(scope, receive, send)


async def _answer(scope: Scope, receive: Receive, path: str) -> Reply:
    body = await _body(receive)  # all of it, always: an unread body breaks a kept-alive connection
    found = gateway.find(path[len(PREFIX) :])
    if found is None:
        return NOT_FOUND
    if scope["method"] not in METHODS:
        return NOT_ALLOWED
    dialect, question, path_token = found
    client = scope.get("client")
    return await gateway.answer(
        Request(
            method=scope["method"],
            query=scope["query_string"].decode("latin-1"),
            headers=_headers(scope["headers"]),
            body=body or b"",
            question=question,
            peer=client[0] if client else "",
            path_token=path_token,
            oversized=body is None,
        ),
        dialect,
    )


def _headers(pairs: Iterable[Any]) -> Headers:
    """As they are; daphne gives lists where others give tuples."""
    headers = tuple(pairs)
    return (
        headers if headers and type(headers[0]) is tuple else tuple((name, value) for name, value in headers)
    )


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when it is longer than MAX_BODY (the rest is read and thrown away) or broke off."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        return body if len(body) <= MAX_BODY else None
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
    whole = message["type"] == "http.request" and size <= MAX_BODY
    return b"".join(parts) if whole else None


async def _send(send: Send, reply: Reply) -> None:
    headers = list(_reply_headers(reply.content_type, len(reply.body)))  # its own: middleware may add to it
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


@cache
def _reply_headers(content_type: str, length: int) -> Headers:
    return (
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % length),
        (b"cache-control", b"no-store"),  # RabbitMQ may ask by GET, and a proxy would keep an allow
    )


async def _lifespan(receive: Receive, send: Send) -> None:
    """Django's handler knows no lifespan. A server without it is as right, and reads more."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            changes.start()
            background.wake()
        else:
            verifier.stop()
            await changes.stop()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
