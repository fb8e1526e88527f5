"""Types and parsing that all dialects share: the request, its strictly checked fields, the reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from authsvc.core.access import Client, MalformedRequest, Question, Verdict
from authsvc.core.tokens import Key

T = TypeVar("T")
Headers = tuple[tuple[bytes, bytes], ...]
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
TEXT = "text/plain; charset=utf-8"
MAX_BODY = 512 * 1024  # An MQTT string holds 64 KiB, and JSON may need six bytes for one.
# RabbitMQ may ask with GET, and an HTTP cache would store an allow. Other answers have no Cache-Control:
# VerneMQ caches an allow if it reads `max-age`.
CACHEABLE_METHODS = frozenset({"GET", "HEAD"})
MAX_FIELDS = 64  # RabbitMQ sends the most, about a dozen.
# Parameters of the query that are not fields: the caller's token, and the response mode of go-auth.
CONTROL_PARAMETERS = frozenset({"k", "format"})


class once(Generic[T]):
    """A property that is computed once. functools.cached_property takes a lock each time (before 3.12)."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


class Reply(NamedTuple):
    """The HTTP reply to the broker. *until*: the Unix time from which the same verdict has another reply."""

    status: int
    body: bytes
    content_type: str = JSON
    until: float | None = None


def json_reply(status: int, document: Mapping[str, object], until: float | None = None) -> Reply:
    """Return a reply with *document* as its JSON body."""
    return Reply(status, json.dumps(document, separators=(",", ":")).encode(), JSON, until)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of dialects that an operator can set (settings AUTHSVC_*)."""

    rabbitmq_vhost: str = "/"
    rabbitmq_exchange: str = "amq.topic"
    emqx_rules_ttl: int = 3600  # Seconds that EMQX may cache the rules of a connect answer.
    jwt_keys: tuple[Key, ...] = ()  # The first key signs.


DEFAULT = Options()


class Request:
    """One question as an HTTP request: *query* is not decoded, *headers* are in ASGI form.

    The values of a repeated header are joined, so two different tokens in it count as none.
    """

    def __init__(
        self,
        method: str,
        query: str = "",
        headers: Headers = (),
        body: bytes = b"",
        question: str = "",
        peer: str = "",
        path_token: str | None = None,
        oversized: bool = False,
        options: Options = DEFAULT,
    ) -> None:
        self.method = method
        self.query = query
        self.headers = headers
        self.body = body
        self.question = question
        self.peer = peer
        self.path_token = path_token
        self.oversized = oversized
        self.options = options
        # The gateway sets both for a valid token.
        self.caller_is_admitted = False
        self.caller: Any = None  # The broker that the token belongs to.

    def __repr__(self) -> str:
        return f"Request({self.method!r}, question={self.question!r}, peer={self.peer!r})"

    def header(self, name: bytes) -> str | None:
        """Return the value of the header *name* (in lower case), or None."""
        value = self._values.get(name)
        return None if value is None else value.decode("latin-1")

    @once
    def _values(self) -> dict[bytes, bytes]:
        values: dict[bytes, bytes] = {}
        for name, value in self.headers:
            key = name.lower()  # ASGI recommends lower case but does not require it.
            values[key] = b"%b,%b" % (values[key], value) if key in values else value
        return values

    @once
    def content_type(self) -> str:
        return (self.header(b"content-type") or "").partition(";")[0].strip().lower()

    @once
    def is_form(self) -> bool:
        """Whether the fields arrive as form text, where every value is a string."""
        return self.content_type == FORM or (self.method == "GET" and not self.body)

    @once
    def parameters(self) -> list[tuple[str, str]]:
        """Return the decoded query, in order. Raise MalformedRequest."""
        return _form(self.query)

    @once
    def fields(self) -> Fields:
        """Return the fields of the question. Raise MalformedRequest, also for a repeated field."""
        if self.oversized:
            raise MalformedRequest(f"the body is over {MAX_BODY} bytes")
        if self.method == "GET" and not self.body:
            return Fields(_unique((k, v) for k, v in self.parameters if k not in CONTROL_PARAMETERS))
        if self.content_type == FORM:
            return Fields(_unique(_form(_utf8(self.body))))
        if self.content_type == JSON:
            return Fields(_json_object(self.body))
        raise MalformedRequest(f"content type {self.content_type[:64]!r} is neither JSON nor a form")


class Fields(dict[str, Any]):
    """The fields of a question. A missing one is a MalformedRequest; text() also checks the type."""

    def __missing__(self, name: str) -> Any:
        raise MalformedRequest(f"the field {name} is missing")

    def text(self, name: str) -> str:
        """Return the field *name*. Raise MalformedRequest unless it is a text without NUL and surrogates."""
        value = self[name]
        if type(value) is not str:
            raise MalformedRequest(f"the field {name} is not a text")
        if "\x00" in value:
            raise MalformedRequest(f"the field {name} holds a NUL")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise MalformedRequest(f"the field {name} holds half a surrogate pair")
        return value

    def client(self, client_id: str) -> Client:
        """Return the client from the field `username` and the field *client_id*."""
        value = self.text(client_id)
        if not value:  # EMQX sends an empty text for an absent value.
            raise MalformedRequest(f"the field {client_id} is empty")
        return Client(self.text("username"), value)


class Dialect(NamedTuple):
    """The requests and replies of one broker. Parsers raise MalformedRequest for a request that is not a question.

    *render* makes every part of the reply that this broker reads say the same; *fault* is the reply without a
    decision. *authorization_is_the_clients*: the Authorization header is that of the MQTT client (JWT mode of
    go-auth), so it does not authenticate the caller. *login* names the question that carries a password.
    """

    name: str
    questions: Mapping[str, Callable[[Request], Question]]
    render: Callable[[Request, Verdict], Reply]
    fault: Callable[[Request], Reply]
    login: str
    authorization_is_the_clients: bool = False


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise MalformedRequest("the body is not UTF-8") from error


def _form(text: str) -> list[tuple[str, str]]:
    if not text:
        return []
    if "%" not in text and "+" not in text and text.isascii():
        # Without encoded characters, the usual case, the same rules take a tenth of the time.
        pairs = [part.partition("=") for part in text.split("&")]
        if len(pairs) > MAX_FIELDS or not all(separator for _, separator, _ in pairs):
            raise MalformedRequest("the form cannot be read")
        return [(name, value) for name, _, value in pairs]
    try:
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:  # A field without `=`, too many fields, or bytes that are not UTF-8.
        raise MalformedRequest("the form cannot be read") from error


def _unique(pairs: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise MalformedRequest(f"the field {name[:64]} is repeated")
        seen[name] = value
    return seen


def _no_constant(name: str) -> Any:
    raise MalformedRequest(f"{name} is not JSON")


# orjson is faster, but it silently keeps the last of two equal keys.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = _DECODER.decode(_utf8(body))
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not JSON") from error
    if type(document) is not dict:
        raise MalformedRequest("the body is not a JSON object")
    return document
