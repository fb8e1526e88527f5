"""What all dialects share: the request as it came, its fields read strictly, the reply as it goes."""

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
MAX_BODY = 512 * 1024  # MQTT strings hold 64 KiB, and JSON may write a byte in six
# RabbitMQ may ask by GET, and a cache on the way would keep an allow. Answers to others say nothing of caches:
# VerneMQ keeps an allow itself where it reads `max-age`.
CACHEABLE_METHODS = frozenset({"GET", "HEAD"})
MAX_FIELDS = 64  # RabbitMQ sends the most, about a dozen
# In the query beside the fields of a GET: the caller's token, and the response mode of go-auth.
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
    """What goes back to the broker. *until*: the Unix time at which the same verdict reads otherwise."""

    status: int
    body: bytes
    content_type: str = JSON
    until: float | None = None


def json_reply(status: int, document: Mapping[str, object], until: float | None = None) -> Reply:
    return Reply(status, json.dumps(document, separators=(",", ":")).encode(), JSON, until)


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator configured of the dialects (settings AUTHSVC_*)."""

    rabbitmq_vhost: str = "/"
    rabbitmq_exchange: str = "amq.topic"
    emqx_rules_ttl: int = 3600  # seconds that EMQX may hold the rules of its connect answer
    jwt_keys: tuple[Key, ...] = ()  # the first signs


DEFAULT = Options()


class Request:
    """One question as it came over HTTP: *query* not yet decoded, *headers* as ASGI has them.

    A header that comes twice is joined, so two different proofs are none.
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
        self.caller_is_admitted = False  # the gateway sets it for a valid token

    def __repr__(self) -> str:
        return f"Request({self.method!r}, question={self.question!r}, peer={self.peer!r})"

    def header(self, name: bytes) -> str | None:
        value = self._values.get(name)
        return None if value is None else value.decode("latin-1")

    @once
    def _values(self) -> dict[bytes, bytes]:
        values: dict[bytes, bytes] = {}
        for name, value in self.headers:
            key = name.lower()  # ASGI: names should be, and need not be
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
        """The decoded query, in order. Raises MalformedRequest."""
        return _form(self.query)

    @once
    def fields(self) -> Fields:
        """The fields of the question, each of them once. Raises MalformedRequest."""
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
        value = self[name]
        if type(value) is not str:
            raise MalformedRequest(f"the field {name} is no text")
        if "\x00" in value:
            raise MalformedRequest(f"the field {name} holds a NUL")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise MalformedRequest(f"the field {name} holds half a character")
        return value

    def client(self, client_id: str) -> Client:
        """The client, from `username` and the field that this dialect calls the client id."""
        value = self.text(client_id)
        if not value:  # EMQX: an empty text is an absent value
            raise MalformedRequest(f"the field {client_id} is empty")
        return Client(self.text("username"), value)


class Dialect(NamedTuple):
    """How one broker asks and what it understands. Each parser raises MalformedRequest for what is no question.

    *render* shows a verdict so that a deny reads as a deny whatever part this broker looks at; *fault* says
    that we could not decide. *authorization_is_the_clients*: the Authorization header belongs to the MQTT
    client (go-auth's JWT mode), so it proves nothing about the caller. *login* names the question that carries
    a password.
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
        # Nothing to decode, as in most tokens: the same rules, in a tenth of the time.
        pairs = [part.partition("=") for part in text.split("&")]
        if len(pairs) > MAX_FIELDS or not all(separator for _, separator, _ in pairs):
            raise MalformedRequest("the form cannot be read")
        return [(name, value) for name, _, value in pairs]
    try:
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:  # a field without `=`, too many fields, bytes that are not UTF-8
        raise MalformedRequest("the form cannot be read") from error


def _unique(pairs: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise MalformedRequest(f"the field {name[:64]} comes twice")
        seen[name] = value
    return seen


def _no_constant(name: str) -> Any:
    raise MalformedRequest(f"{name} is not JSON")


# orjson is faster but keeps the last of two equal keys without a word.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = _DECODER.decode(_utf8(body))
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is no JSON") from error
    if type(document) is not dict:
        raise MalformedRequest("the body is no JSON object")
    return document
