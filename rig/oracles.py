"""The promises of the parsers of the authorization half for any input: topic, body, hash.

Each judge_*() checks one input and raises if a promise is broken. The property tests draw inputs with hypothesis,
`script/bench fuzz` grows them by coverage, and both use these functions, so that a finding of one is a test of the
other. Nothing here needs Django.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard
from unittest.mock import patch
from urllib.parse import unquote_to_bytes

import argon2
import bcrypt

from authsvc.core import authority, grants, passwords, tokens, topics
from authsvc.core.access import Action, Principal, Refused, Secret, deny
from authsvc.core.grants import ActionSet, Rule
from authsvc.core.memory import MemoryDirectory
from authsvc.core.tokens import Key
from authsvc.dialects import BY_NAME, DIALECTS
from authsvc.dialects.base import FORM, JSON, MAX_BODY, Headers, Options, Reply, Request
from rig import naive
from rig.coroutines import result

# Answers, as brokers read them.

GO_AUTHS = ("go-auth", "jwt")  # one plugin reads the answers of both


def reads_as_allow(path: str, reply: Reply) -> bool:
    """Return whether the broker admits the client, in any of its response modes or with its shipped defaults."""
    text = reply.body.decode()
    name, _, question = path.partition("/")
    if name in ("emqx4", "nanomq"):
        return reply.status == 200  # with any body
    if name == "vernemq":
        return reply.status == 200 and _vernemq_admits(_json(text))
    if 300 <= reply.status < 400:
        return True  # go-auth, aMQTT and RabbitMQ follow a redirect to any server
    if name in (*GO_AUTHS, "amqtt"):
        return reply.status // 100 == 2 or text.lower() == "ok" or bool(_json(text).get("ok"))
    if name == "rabbitmq":
        return reply.status in (200, 201) and text.strip().lower().startswith("allow")
    assert name == "emqx", f"add how {name} reads an answer"
    if question == "authz" and (reply.status != 200 or _json(text).get("result") != "deny"):
        return True  # EMQX asks the next source, and no_match allows before 6.0
    return reply.status == 204 or _json(text).get("result") not in ("deny", "ignore")


def reads_as_deny(path: str, reply: Reply) -> bool:
    """Return whether every part of the reply that the broker reads is a deny in its own words."""
    text, json_type = reply.body.decode(), reply.content_type.startswith("application/json")
    name = path.partition("/")[0]
    if name in (*GO_AUTHS, "amqtt"):
        return reply.status == 403 and (text == "denied" or (json_type and _json(text).get("ok") is False))
    if name in ("emqx4", "nanomq"):
        return reply.status == 403 and json_type and _json(text) == {"result": "deny"}
    if name == "rabbitmq":
        return reply.status == 200 and text == "deny"
    if name == "vernemq":
        return reply.status == 200 and json_type and _json(text) == {"result": {"error": "not_allowed"}}
    assert name == "emqx", f"add how {name} reads an answer"
    return reply.status == 200 and json_type and _json(text) == {"result": "deny"}


def _vernemq_admits(document: dict[str, Any]) -> bool:
    """Return whether an answer with status 200 admits: one granted filter is enough, no list grants all."""
    if document.get("result") != "ok":
        return document.get("result") == "next"  # then the default plugins decide
    listed = _listed(document)
    return not isinstance(listed, list) or any(entry["qos"] <= 2 for entry in listed)


def _listed(document: dict[str, Any]) -> Any:
    modifiers = document.get("modifiers", {})
    return document.get("topics") or (isinstance(modifiers, dict) and modifiers.get("topics"))


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


# Topics.

DEEP = 60  # levels; the naive matcher recurses, so deeper filters must only not fail


def judge_topics(granted: str, wanted: str) -> None:
    """Check that well-formedness is that of rig/naive.py, and coverage and overlap those of witness topics."""
    for text in (granted, wanted):
        found = topics.is_topic(text), topics.is_filter(text), topics.inner_filter(text)
        if len(text) <= 4_000:  # the naive definition is quadratic
            assert found == (naive.is_topic(text), naive.is_filter(text), naive.inner(text))
    inside, apart = topics.covers(granted, wanted), not topics.overlaps(granted, wanted)
    assert apart is not topics.overlaps(wanted, granted)
    allow, no = Rule(granted), Rule(granted, allow=False)
    assert grants.decide([allow], Action.SUBSCRIBE, wanted) is (allow if inside else None)
    assert grants.decide([allow, no], Action.SUBSCRIBE, wanted) is (no if not apart else None)
    if any(naive.inner(text) != text or text.count("/") > DEEP for text in (granted[:4_000], wanted[:4_000])):
        return
    depth = max(granted.count("/"), wanted.count("/")) + 2
    reached = [topic for topic in _reached(wanted, depth) if naive.matches(wanted, topic)]
    assert inside is all(naive.matches(granted, topic) for topic in reached)
    shared = (topic for topic in _met(granted, wanted, depth))
    assert apart is not any(naive.matches(granted, t) and naive.matches(wanted, t) for t in shared)


def _reached(topic_filter: str, depth: int) -> Iterator[str]:
    """Yield topics that represent all matches of *topic_filter*: each wildcard is a word that no filter has."""
    levels = ["\u2020" if level == "+" else level for level in topic_filter.split("/")]
    if levels[-1] != "#":
        yield "/".join(levels)
        return
    stem = levels[:-1]
    yield from filter(None, ("/".join(stem + ["\u2020"] * more) for more in range(depth - len(stem) + 1)))


def _met(one: str, other: str, depth: int) -> Iterator[str]:
    """Yield, for each number of levels, the topic that both filters match if there is one, from their words."""
    ours, theirs = one.split("/"), other.split("/")
    for size in range(1, depth + 1):
        spoken = [
            [levels[place] for levels in (ours, theirs) if place < len(levels) and levels[place] not in "+#"]
            for place in range(size)
        ]
        # The empty level needs a list of its own, because `in` finds it in every string.
        empty = [
            any(place < len(levels) and levels[place] == "" for levels in (ours, theirs))
            for place in range(size)
        ]
        topic = "/".join(
            words[0] if words else "" if is_empty else "\u2020"
            for words, is_empty in zip(spoken, empty, strict=True)
        )
        if topic:
            yield topic


def judge_template(template: str, values: Mapping[str, str]) -> None:
    """Check that a template without a problem fills to one filter with the same levels, or to none."""
    problem, filled = grants.problem(template), grants.fill(template, values)
    if filled is None:
        return
    used = [values[name] for name in re.findall(r"\{([^{}]*)\}", template)]
    assert not any(set(value) & set("/+#\x00") or not value for value in used)
    if problem:
        return
    assert [filled.count(c) for c in "/+#"] == [template.count(c) for c in "/+#"]
    assert filled.startswith("$") <= template.startswith("$")
    if all(naive.is_text(value) for value in used) and naive.is_text(filled):
        assert naive.is_filter(filled)
    if not used:
        assert filled == template == topics.inner_filter(template)


# Bodies.

METHODS = ("POST", "PUT", "GET")
QUESTIONS = tuple(f"{dialect.name}/{question}" for dialect in DIALECTS for question in dialect.questions)
OPTIONS = Options(
    jwt_keys=(
        Key("k", "HS256", "a secret of thirty-two bytes, and more", "a secret of thirty-two bytes, and more"),
    )
)
FOREVER = 10**11


class Person(NamedTuple):
    """A principal of tests/contracts/cases.json, and its permissions."""

    secret: str
    client_ids: tuple[str, ...]
    active: bool = True
    superuser: bool = False
    may: frozenset[tuple[Action, str]] = frozenset()


def _device(name: str, secret: str, active: bool = True) -> Person:
    own = f"things/weatherstation/{name}"
    may = {(Action.PUBLISH, f"{own}/{about}") for about in ("data", "status", "reply")}
    may |= {(action, f"{own}/cmd") for action in (Action.SUBSCRIBE, Action.RECEIVE)}
    return Person(secret, (name,), active, may=frozenset(may))


PEOPLE = {
    "STATION-001": _device("STATION-001", "s3cretOne"),
    "STATION-002": _device("STATION-002", "Zw3i+%41&x=1 é"),
    "STATION-003": _device("STATION-003", "s3cretThree", active=False),
    "ingest": Person("s3cretIngest", ("ingest", "ingest-1"), superuser=True),
}
TOKENS = {name: tokens.issue(name, 7, OPTIONS.jwt_keys, FOREVER, now=0) for name in PEOPLE}


class People(MemoryDirectory):
    """A directory of all PEOPLE, which AUTHSVC_DIRECTORIES can name."""

    def __init__(self) -> None:
        super().__init__(PRINCIPALS)


PRINCIPALS = [
    Principal(
        key=f"world/{name}",
        username=name,
        secrets=(Secret(passwords.hash_generated(person.secret)),),
        active=person.active,
        superuser=person.superuser,
        client_ids=person.client_ids,
        grants=tuple(Rule(topic, ActionSet(action)) for action, topic in sorted(person.may)),
        version=7,
    )
    for name, person in PEOPLE.items()
]
DIRECTORY = People()
RULES = authority.Rules()


def judge_body(path: str, request: Request) -> None:
    """Check that the answer of *path* to *request* admits exactly if a second, naive reading admits."""
    judge_reply(path, request, answer(path, request))


def answer(path: str, request: Request) -> Reply:
    """Return the reply of the pure half: that of gateway.answer without its handling of faults."""
    dialect = BY_NAME[path.partition("/")[0]]
    request.question, request.options = path.partition("/")[2], OPTIONS
    try:
        question = dialect.questions[request.question](request)
        verdict = result(authority.decide(question, RULES, DIRECTORY))
    except Refused as refusal:
        verdict = deny(refusal.reason)
    return dialect.render(request, verdict)


def judge_reply(path: str, request: Request, reply: Reply, *, admitted: bool = True) -> None:
    """Check *reply*; it may be an allow only if *admitted*, which means that the caller proved to be a broker."""
    right = admitted and permitted(path, request)
    if not reads_as_allow(path, reply):
        stranger = not admitted and path.startswith("vernemq/") and reply.status == 403
        assert stranger or reads_as_deny(path, reply), (
            f"{path}: not a deny in the words of its broker: {reply}"
        )
        assert not right or _may_be_refused(path, request), f"{path}: refused {reply}"
        return
    assert right, f"{path}: admitted {reply}"
    if path == "vernemq/subscribe":
        _judge_listed(request, _listed(_json(reply.body.decode())))


def _may_be_refused(path: str, request: Request) -> bool:
    """Return whether a deny is right, too: nesting of JSON depends on the stack, base64 on PyJWT."""
    token = (request.header(b"authorization") or "").partition(" ")[2].strip()
    odd = path.startswith("jwt/") and token not in TOKENS.values()
    return odd or max(map(request.body.count, (b"[", b"{"))) > 200


def _judge_listed(request: Request, listed: Any) -> None:
    fields = _read(request) or {}
    person = PEOPLE[fields["username"]]
    each = [_owns(person, Action.SUBSCRIBE, entry["topic"]) for entry in fields["topics"]]
    if listed is False or listed is None:
        assert all(each)
        return
    assert [entry["topic"] for entry in listed] == [entry["topic"] for entry in fields["topics"]]
    assert [entry["qos"] <= 2 for entry in listed] == each


def permitted(path: str, request: Request) -> bool:
    """Return whether *request* at *path* is about one of PEOPLE, and about a permitted action."""
    name, _, question = path.partition("/")
    in_query = request.method == "GET" and not request.body
    if name == "jwt":
        username = _holder(request.header(b"authorization") or "")
        empty = request.body.strip() in (b"", b"null") and not in_query and not request.oversized
        fields = {} if empty else _read(request)
        if username is None or fields is None or fields.get("username", username) != username:
            return False
    else:
        fields = _read(request)
        if fields is None or not isinstance(fields.get("username"), str):
            return False
        username = fields["username"]
    person = PEOPLE.get(username)
    if person is None or not person.active:
        return False
    as_text = in_query or _content_type(request) == FORM
    if name == "rabbitmq":
        return _rabbitmq(question, fields, username, person)
    if name == "vernemq":
        hook = request.header(b"vernemq-hook") or ""
        if as_text or hook not in (f"auth_on_{question}", f"auth_on_{question}_m5"):
            return False
    if (name, question) not in ANONYMOUS and fields.get(CLIENT_ID[name]) not in [*person.client_ids]:
        return False
    return CHECKS[question](name, fields, person, as_text)


# Questions without a client id.
ANONYMOUS = {("go-auth", "superuser"), ("jwt", "user"), ("jwt", "superuser")}
CLIENT_ID = {name: "client_id" if name in ("vernemq", "amqtt") else "clientid" for name in BY_NAME}
NUMBERS = {
    "go-auth": {1: Action.RECEIVE, 2: Action.PUBLISH, 4: Action.SUBSCRIBE},
    "emqx4": {1: Action.SUBSCRIBE, 2: Action.PUBLISH},
}


def _login(name: str, fields: dict[str, Any], person: Person, _as_text: bool) -> bool:
    return name == "jwt" or fields.get("password") == person.secret


def _superuser(_name: str, _fields: dict[str, Any], person: Person, _as_text: bool) -> bool:
    return person.superuser


def _acl(name: str, fields: dict[str, Any], person: Person, as_text: bool) -> bool:
    topic = fields.get("topic")
    if name in ("emqx4", "nanomq"):
        words: Any = {str(number): action for number, action in NUMBERS["emqx4"].items()}
        said = fields.get("access")
    else:
        words = {str(n) if as_text else n: action for n, action in NUMBERS["go-auth"].items()}
        said = fields.get("acc")
    if type(said) is not (str if as_text or name in ("emqx4", "nanomq") else int) or said not in words:
        return False
    if not _is_clean(topic):
        return False
    several = topic.split(",") if name == "nanomq" else [topic]
    return len(several) <= 1_000 and all(_owns(person, words[said], one) for one in several)


def _authz(_name: str, fields: dict[str, Any], person: Person, _as_text: bool) -> bool:
    actions = {"publish": Action.PUBLISH, "subscribe": Action.SUBSCRIBE}
    access = {str(number): action for number, action in NUMBERS["emqx4"].items()}
    said = [(words, fields[key]) for key, words in (("action", actions), ("access", access)) if key in fields]
    meant = {words.get(word) if isinstance(word, str) else None for words, word in said}
    topic = fields.get("topic")
    action = meant.pop() if len(meant) == 1 else None
    return action is not None and _is_clean(topic) and _owns(person, action, topic)


def _publish(_name: str, fields: dict[str, Any], person: Person, _as_text: bool) -> bool:
    return _is_clean(fields.get("topic")) and _owns(person, Action.PUBLISH, fields["topic"])


def _subscribe(_name: str, fields: dict[str, Any], person: Person, _as_text: bool) -> bool:
    """Return whether one filter is granted, which is enough; _judge_listed() checks each of them."""
    wanted = fields.get("topics")
    if not isinstance(wanted, list) or len(wanted) > 1_000:
        return False
    for entry in wanted:
        if not isinstance(entry, dict) or not isinstance(entry.get("topic"), str):
            return False
        if type(entry.get("qos")) is not int or not 0 <= entry["qos"] <= 2:
            return False
    return any(_owns(person, Action.SUBSCRIBE, entry["topic"]) for entry in wanted)


CHECKS: dict[str, Callable[[str, dict[str, Any], Person, bool], bool]] = {
    "user": _login,
    "auth": _login,
    "authn": _login,
    "register": _login,
    "superuser": _superuser,
    "acl": _acl,
    "authz": _authz,
    "publish": _publish,
    "subscribe": _subscribe,
}


def _rabbitmq(question: str, fields: dict[str, Any], username: str, person: Person) -> bool:
    said = [fields[key] for key in ("client_id", "variable_map.client_id") if key in fields]
    if any(client_id != said[0] or client_id not in [*person.client_ids] for client_id in said):
        return False
    if fields.get("variable_map.username", username) != username:
        return False
    if fields.get("vhost", "/" if question == "user" else None) != "/":
        return False
    if question in ("user", "vhost"):
        return question == "vhost" or fields.get("password") == person.secret
    kind, name, permission = (fields.get(key) for key in ("resource", "name", "permission"))
    if question == "topic":
        action = {"write": Action.PUBLISH, "read": Action.SUBSCRIBE}.get(str(permission))
        key = fields.get("routing_key")
        if kind != "topic" or name != "amq.topic" or action is None or permission != str(permission):
            return False
        if not _is_clean(key) or set(key) & set("/+") or re.search(r"[^.]\*|\*[^.]", key):
            return False
        return _owns(person, action, key.replace(".", "/").replace("*", "+"))
    if permission not in ["configure", "write", "read"] or not (_is_clean(kind) and _is_clean(name)):
        return False
    if person.superuser or (kind, name) == ("exchange", "amq.topic"):
        return person.superuser or permission != "configure"
    own = [f"mqtt-subscription-{i}qos{qos}" for i in said for qos in (0, 1)] + [
        f"mqtt-will-{i}" for i in said
    ]
    return kind == "queue" and name in own


def _owns(person: Person, action: Action, topic: str) -> bool:
    inner = naive.inner(topic) if action is Action.SUBSCRIBE else topic if naive.is_topic(topic) else None
    if inner is None or inner.split("/")[0] == "$CONTROL":
        return False
    return person.superuser or (action, inner) in person.may


def _is_clean(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and not re.search("[\x00\ud800-\udfff]", value)


def _holder(authorization: str) -> str | None:
    """Return the name whose token this is: the same signed bytes, and the signature in any notation."""
    scheme, _, token = authorization.partition(" ")
    signed, _, signature = token.strip().rpartition(".")
    for name, issued in TOKENS.items():
        ours, _, proof = issued.rpartition(".")
        if scheme.lower() == "bearer" and signed == ours and _loose(signature) == _loose(proof):
            return name
    return None


def _loose(signature: str) -> bytes:
    """Decode base64 as the standard library does, which ignores all other characters."""
    letters = re.sub("[^A-Za-z0-9+/_-]", "", signature.partition("=")[0])
    try:
        return base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))
    except ValueError:
        return b""


def _content_type(request: Request) -> str:
    return (request.header(b"content-type") or "").split(";")[0].strip().lower()


class _Unreadable(Exception):
    pass


def _read(request: Request) -> dict[str, Any] | None:
    """Return the fields of *request*, or None if they are ambiguous or unreadable."""
    try:
        if request.oversized:
            return None
        if request.method == "GET" and not request.body:
            return _once([pair for pair in _pairs(request.query) if pair[0] not in ("k", "format")])
        if _content_type(request) == FORM:
            return _once(_pairs(request.body.decode()))
        if _content_type(request) != JSON:
            return None
        text = request.body.decode()
        document = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError, _Unreadable):
        return None
    return document if isinstance(document, dict) else None


def _pairs(text: str) -> list[tuple[str, str]]:
    parts = text.split("&") if text else []
    if len(parts) > 64 or any("=" not in part for part in parts):
        raise _Unreadable
    split = [part.replace("+", " ").split("=", 1) for part in parts]
    return [(unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()) for name, value in split]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Unreadable
    return dict(pairs)


def _refuse(_constant: str) -> Any:
    raise _Unreadable


# Hashes.

# The limits of one verification, a second time: docs/how-to/move-a-fleet.md has the same numbers.
MOST_ROUNDS, MOST_LOG_ROUNDS, MOST_KIB, MOST_PASSES, MOST_LANES = 2_000_000, 14, 262_144, 16, 16


class TooSlow(BaseException):
    """The work is within its limits, but too slow for every input: it ends here, as a wrong password."""


@dataclass
class Meter:
    """The number of calls of slow functions."""

    calls: int = 0


@contextmanager
def metered() -> Iterator[Meter]:
    """Check the cost of every slow hash before its computation, and compute only cheap ones."""
    meter = Meter()
    pbkdf2, hashpw, argon = hashlib.pbkdf2_hmac, bcrypt.hashpw, argon2.low_level.verify_secret

    def counted_pbkdf2(name: str, password: bytes, salt: bytes, iterations: int, dklen: Any = None) -> bytes:
        meter.calls += 1
        assert 1 <= iterations <= MOST_ROUNDS
        assert len(password) <= passwords.MAX_BYTES
        if iterations > 1_000:
            raise TooSlow
        return pbkdf2(name, password, salt, iterations, dklen)

    def counted_hashpw(password: bytes, salt: bytes) -> bytes:
        meter.calls += 1
        cost = int(salt.split(b"$")[2])
        assert cost <= MOST_LOG_ROUNDS
        if cost > 4:
            raise TooSlow
        return hashpw(password, salt)

    def counted_argon(stored: bytes, secret: bytes, kind: Any) -> bool:
        meter.calls += 1
        memory, passes, lanes = (int(number) for number in re.findall(rb"[mtp]=(\d+)", stored)[:3])
        assert memory <= MOST_KIB
        assert passes <= MOST_PASSES
        assert lanes <= MOST_LANES
        if memory * passes > 256:
            raise TooSlow
        return argon(stored, secret, kind)

    with ExitStack() as stack:
        stack.enter_context(patch.object(hashlib, "pbkdf2_hmac", counted_pbkdf2))
        stack.enter_context(patch.object(bcrypt, "hashpw", counted_hashpw))
        stack.enter_context(patch.object(argon2.low_level, "verify_secret", counted_argon))
        yield meter


def is_unusable(secret: str, stored: str) -> bool:
    """Return whether verifying *secret* raises UnusableHash."""
    try:
        passwords.verify(secret, stored)
    except passwords.UnusableHash:
        return True
    except TooSlow:
        return False
    return False


def judge_hash(secret: str, stored: str) -> None:
    """Check that verify() keeps its limits, raises only UnusableHash, and accepts only the password itself."""
    try:
        passwords.scheme_of(stored)
        whole = True
    except passwords.UnusableHash:
        whole = False
    with metered() as meter:
        assert not passwords.verify(secret, passwords.DUMMY_HASH)
        try:
            accepted = passwords.verify(secret, stored)
        except TooSlow:
            accepted = False
        except passwords.UnusableHash:
            assert is_unusable("a plain password", stored), "a hash is not unusable because of the password"
            accepted = False
    assert type(accepted) is bool
    if not whole or passwords.is_fast(stored):
        assert not meter.calls
    if accepted:
        encoded = secret.encode("utf-8", "surrogatepass")
        assert whole
        assert stored.isascii() or stored.startswith("pbkdf2_")  # Django's salt may be any text
        assert 0 < len(encoded) <= passwords.MAX_BYTES
        assert "\x00" not in secret  # HMAC pads its key with NUL, so "x" and "x\0" are one password
        assert made_from(encoded, stored)


def made_from(secret: bytes, stored: str) -> bool:
    """Return whether *stored* is a hash of *secret*, computed step by step."""
    if stored.startswith("{SSHA256}"):
        blob = base64.b64decode(stored[9:])
        return hashlib.sha256(secret + blob[32:]).digest() == blob[:32]
    parts = stored.split("$")
    if stored.startswith("$argon2id$"):
        try:
            return argon2.low_level.verify_secret(stored.encode(), secret, argon2.low_level.Type.ID)
        except argon2.exceptions.VerifyMismatchError:
            return False
    if parts[1] in ("2a", "2b", "2y"):
        return bcrypt.checkpw(secret[:72], stored.encode())
    if parts[1] == "6":
        salt, digest = map(base64.b64decode, parts[2:])
        return hashlib.sha512(secret + salt).digest() == digest
    if parts[0].startswith("pbkdf2_"):
        salt, digest = parts[2].encode(), base64.b64decode(parts[3])
        name, rounds = parts[0][7:], parts[1]
    elif parts[0] == "PBKDF2":
        name, rounds, salt, digest = parts[1], parts[2], *map(base64.b64decode, parts[3:])
    elif parts[1] == "7":
        name, rounds, salt, digest = "sha512", parts[2], *map(base64.b64decode, parts[3:])
    else:
        name, rounds = (parts[1].removeprefix("pbkdf2").lstrip("-") or "sha1"), parts[2]
        salt, digest = (
            base64.b64decode(part.replace(".", "+") + "=" * (-len(part) % 4)) for part in parts[3:]
        )
    return hashlib.pbkdf2_hmac(name, secret, salt, int(rounds), len(digest)) == digest


# Inputs as bytes, which `script/bench fuzz` writes to a file and mutates.

PART = b"\xff"  # separates texts, because no UTF-8 text contains it


def texts_of(data: bytes, count: int) -> list[str]:
    """Split *data* into *count* texts; bytes that are not UTF-8 become halves of characters."""
    parts = data.split(PART, count - 1)
    return [part.decode("utf-8", "surrogateescape") for part in [*parts, *[b""] * count][:count]]


def pairs(headers: Mapping[str, str]) -> Headers:
    """Return *headers* in the form of ASGI; characters that no server passes on are replaced."""
    return tuple(
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
    )


def named(request: Request) -> dict[str, str]:
    """Return the headers of *request* by name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}


def decode_question(data: bytes) -> tuple[str, Request]:
    """Return path and request of *data*: `POST go-auth/user?query`, headers, an empty line, the body."""
    head, _, body = data.partition(b"\n\n")
    lines = head.decode("latin-1").split("\n")
    method, _, target = lines[0].partition(" ")
    path, _, query = target.partition("?")
    if path not in QUESTIONS:  # every input is a question
        path = QUESTIONS[len(path) % len(QUESTIONS)]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    request = Request(
        method if method in METHODS else METHODS[len(method) % len(METHODS)],
        query,
        pairs(headers),
        body if len(body) <= MAX_BODY else b"",
        oversized=len(body) > MAX_BODY,
    )
    return path, request


def encode_question(path: str, method: str, query: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes that decode_question() reads."""
    lines = [f"{method} {path}?{query}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\n".join(lines).encode("latin-1", "replace") + b"\n\n" + body


def fuzz_topic(data: bytes) -> None:
    """Judge an input of the target topic."""
    granted, wanted, *values = texts_of(data, 4)
    judge_topics(granted, wanted)
    judge_template(granted, {"username": values[0], "client_id": values[1], "device_id": wanted[:64]})


def fuzz_body(data: bytes) -> None:
    """Judge an input of the target body."""
    judge_body(*decode_question(data))


def fuzz_hash(data: bytes) -> None:
    """Judge an input of the target hash."""
    judge_hash(*texts_of(data, 2))


TARGETS: dict[str, Callable[[bytes], None]] = {"topic": fuzz_topic, "body": fuzz_body, "hash": fuzz_hash}


def describe(target: str, data: bytes) -> str:
    """Return an input of *target* as text for a person."""
    if target == "body":
        path, request = decode_question(data)
        lines = [f"{request.method} {path}?{request.query}"]
        lines += [f"{name}: {value!r}" for name, value in named(request).items()]
        return "\n".join([*lines, repr(request.body)])
    names = (
        ("granted", "wanted", "username", "client id") if target == "topic" else ("password", "stored hash")
    )
    return "\n".join(
        f"{name}: {text!a}" for name, text in zip(names, texts_of(data, len(names)), strict=True)
    )
