"""The ASGI entrance. It answers questions itself and passes all other requests to Django.

It stops bodies that are longer than their path allows: Django stores a whole body before it reads the request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import cache
from typing import Any, NamedTuple

from authsvc import background, gateway
from authsvc.conf import limit_of_body
from authsvc.dialects.base import CACHEABLE_METHODS, MAX_BODY, TEXT, Headers, Reply, Request
from authsvc.freshness import changes
from authsvc.logins import verifier
from authsvc.operation import metrics, readiness
from authsvc.serving import addresses, bodies
from authsvc.serving.scopes import CALLER_IS_ADMITTED, PREFIX, PROTECTED

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]  # Each framework has its own types of messages.

# So many requests run in the site at once, each in a thread with a database connection.
MAX_AT_WORK = 10
LARGE_BODY = 64 * 1024  # Longer than questions of a broker.
METHODS = frozenset({"POST", "PUT", "GET"})
NOT_FOUND = Reply(404, b'{"error":"no such question"}')
NOT_ALLOWED = Reply(405, b'{"error":"ask with POST, PUT or GET"}')

# Endpoints for operators and their probes, by path.
OPERATION = {"/healthz": readiness.alive, "/readyz": readiness.report, "/metrics": metrics.report}


class Refusal(NamedTuple):
    """The answer to a body that is refused: a type of problem (RFC 9457), its title and its text."""

    code: str
    title: str
    text: str

    def reply(self, status: int, headers: Iterable[Any]) -> Reply:
        """Return the answer with *status*: one line for a browser, problem details for a program."""
        accepts = b",".join(value for name, value in headers if name.lower() == b"accept")
        if b"text/html" in accepts:
            return Reply(status, f"{self.text}\n".encode(), TEXT)
        found = {"type": f"/problems/{self.code}", "title": self.title, "status": status, "detail": self.text}
        return Reply(status, json.dumps(found).encode(), "application/problem+json")


REFUSALS = {
    bodies.TOO_LARGE: Refusal("too-large", "Too large", "The body of this request is too large."),
    bodies.TIMED_OUT: Refusal(
        "timed-out", "Body timed out", "The body of this request did not arrive in time."
    ),
    bodies.BUSY: Refusal(
        "unavailable", "Unavailable", "Too many requests are arriving. Try again in a few seconds."
    ),
}
RETRY_AFTER = (b"retry-after", b"5")
CLOSE = (b"connection", b"close")


class Entrance:
    """An ASGI application that wraps the one of the site.

    *websockets* passes websocket handshakes to the site; otherwise they are refused, since Django has no websockets.
    """

    def __init__(self, site: Application, *, websockets: bool = False) -> None:
        self._site = site
        self._websockets = websockets
        self._held = bodies.Held()
        self._held_of_questions = bodies.Held()
        self._places = asyncio.Semaphore(MAX_AT_WORK)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path.startswith(PREFIX):
                await _send(scope, send, await _answer(scope, receive, path, self._held_of_questions))
            elif path in OPERATION:
                await self._within_bounds(_operate, scope, receive, send)
            else:
                await self._within_bounds(self._site, scope, receive, send, _Place(self._places))
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket" and not self._websockets:
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._site(scope, receive, send)

    async def _within_bounds(
        self,
        application: Application,
        scope: Scope,
        receive: Receive,
        send: Send,
        place: _Place | None = None,
    ) -> None:
        """Run *application* in *place* with a bounded body. If the body is refused, send the answer to that."""
        limit = limit_of_body(scope["path"])
        if bodies.declared(scope["headers"]) > limit:
            await _refuse(scope, receive, send, bodies.TOO_LARGE)
            return
        body = bodies.BoundedBody(receive, limit, self._held)
        is_head = scope["method"] == "HEAD"
        started = False

        async def arrive() -> MutableMapping[str, Any]:
            message = await body()
            if place is not None and body.is_complete:
                await place.take()
            return message

        async def pass_on(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if started or body.refusal is None:
                started = True
                if place is not None:
                    place.leave()
                if is_head and message.get("body"):  # gunicorn logs a warning for a body.
                    message = {**message, "body": b""}
                await send(message)

        try:
            await application(scope, arrive, pass_on)
        finally:
            body.release()
            if place is not None:
                place.leave()
        if body.refusal is not None and not started:
            await _refuse(scope, receive, send, body.refusal)


class _Place:
    """One of the places for requests of the site, held from the end of the body to the start of the answer."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._is_requested = self._held = False

    async def take(self) -> None:
        """Wait for a place at the first call; do nothing at later calls."""
        if not self._is_requested:
            self._is_requested = True
            await self._places.acquire()
            self._held = True

    def leave(self) -> None:
        """Release the place if this request holds it."""
        if self._held:
            self._held = False
            self._places.release()


async def _operate(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await _send(scope, send, await OPERATION[scope["path"]](), *PROTECTED)


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int) -> None:
    """Answer *status*. The rest of the body is read and dropped up to a bound, then the server closes."""
    headers = scope["headers"]
    is_held_back = bodies.is_held_back(headers)
    closes = is_held_back or bodies.declared(headers) > bodies.MAX_DISCARDED
    more = [*PROTECTED, *([CLOSE] if closes else []), *([RETRY_AFTER] if status == bodies.BUSY else [])]
    await _send(scope, send, REFUSALS[status].reply(status, headers), *more)
    if not is_held_back:
        await bodies.discard(receive)


async def _answer(scope: Scope, receive: Receive, path: str, held: bodies.Held) -> Reply:
    body = await _body(receive, held)  # Always read it: an unread body breaks a persistent connection.
    found = gateway.find(path[len(PREFIX) :])
    if found is None:
        return NOT_FOUND
    if scope["method"] not in METHODS:
        return NOT_ALLOWED
    dialect, question, path_token = found
    client = scope.get("client")
    request = Request(
        method=scope["method"],
        query=scope["query_string"].decode("latin-1"),
        headers=_headers(scope["headers"]),
        body=body or b"",
        question=question,
        peer=addresses.of_scope(client[0] if client else "", scope["headers"]),
        path_token=path_token,
        oversized=body is None,
    )
    reply = await gateway.answer(request, dialect)
    scope[CALLER_IS_ADMITTED] = request.caller_is_admitted
    return reply


def _headers(pairs: Iterable[Any]) -> Headers:
    """Return *pairs* as tuples; daphne gives lists."""
    headers = tuple(pairs)
    return (
        headers if headers and type(headers[0]) is tuple else tuple((name, value) for name, value in headers)
    )


async def _body(receive: Receive, held: bodies.Held) -> bytes | None:
    """Return the whole body, or None if it is too long or incomplete.

    Bytes beyond MAX_BODY are read and dropped, up to bodies.MAX_DISCARDED. A body above LARGE_BODY must also fit the
    bound on the bytes that all questions hold.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        return body if len(body) <= MAX_BODY else None
    parts, size, counted = [body], len(body), 0
    try:
        while message.get("more_body") and size < bodies.MAX_DISCARDED:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size <= MAX_BODY:
                parts.append(part)
                if size > LARGE_BODY:
                    counted += len(part)
                    held.size += len(part)
                    if held.size > held.limit:
                        size, parts = MAX_BODY + 1, []
            elif parts:
                parts = []
        whole = message["type"] == "http.request" and size <= MAX_BODY
        return b"".join(parts) if whole else None
    finally:
        held.size -= counted


async def _send(scope: Scope, send: Send, reply: Reply, *more: tuple[bytes, bytes]) -> None:
    # A new list, because middleware may add to it.
    headers = list(_reply_headers(reply.content_type, len(reply.body)))
    if scope["method"] in CACHEABLE_METHODS:
        headers.append((b"cache-control", b"no-store"))
    headers += more
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})


@cache
def _reply_headers(content_type: str, length: int) -> Headers:
    return ((b"content-type", content_type.encode()), (b"content-length", b"%d" % length))


async def _lifespan(receive: Receive, send: Send) -> None:
    """Handle the lifespan events, which Django does not. Servers without them are correct but read more."""
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
