"""The three parsers of the authorization half fed with anything: topic, body, hash; and tokens, and the entrance.

What must hold is said in rig/oracles.py. `script/bench fuzz` asks the same there, longer and led by coverage.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.management import call_command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from authsvc.asgi import Entrance
from authsvc.conf import options
from authsvc.core import passwords, tokens
from authsvc.core.access import ExpiredToken, InvalidToken, Reason, deny
from authsvc.core.tokens import Claims, Key
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import FORM, JSON, MAX_BODY, Reply, Request
from authsvc.freshness import reader
from authsvc.models import Broker
from rig import oracles
from rig.oracles import PEOPLE, QUESTIONS, TOKENS, judge_body, judge_hash, judge_template, judge_topics
from rig.seeds import HASHES, PASSWORD, SEEDS, questions

pytestmark = pytest.mark.sqlite_only  # the parsers need no database, and the entrance reads one row of it

ROOT = Path(__file__).resolve().parents[2]

quick = settings(deadline=None, database=None)
by_question = pytest.mark.parametrize("path", QUESTIONS)

# Not st.text(): that makes one character set of the alphabet, where what means something is lost.
HOSTILE = [
    *"/+#$a{}.*,=&%",
    *("\x00", "\x1f", "\n", "\x7f", "\x9f"),  # control
    *("\u202e", "\u2066", "\u200b", "\u200d", "\ufeff"),  # bidi, zero width
    *("\ufffd", "\ufffe", "\ufdd0", "\U0010ffff"),  # replacement, non-characters
    *("\ud800", "\udfff", "\udc80"),  # halves of characters
    *("\u0661", "\u212a", "\u0131"),  # a digit, K and i of others
]
hostile = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.characters(exclude_categories=())), max_size=10
).map("".join)
levels = st.lists(
    st.one_of(
        st.sampled_from(["", "+", "+", "#", "a", "b", "$SYS", "$CONTROL", "$share", "things"]), hostile
    ),
    max_size=12,
).map("/".join)
LONG = [
    "/" * 65_535,
    "+/" * 32_767 + "#",
    "a/" * 32_000,
    "é" * 32_767,
    "$share/g/" * 7_000,
    "{username}" * 6_000,
]


# Topics.


@settings(quick, max_examples=250)
@given(levels, levels)
@example("+/#", "#")
@example("/#", "/+/#")
@example("a/#", "a")
def test_filters_are_related_as_their_topics_are(granted, wanted):
    judge_topics(granted, wanted)


@settings(quick, max_examples=200)
@given(st.data())
def test_a_filter_that_was_made_narrower_is_covered(data):
    """Random filters seldom have anything to do with each other, so the second one is made of the first."""
    granted = data.draw(st.lists(st.sampled_from(["", "+", "a", "b", "$SYS"]), min_size=1, max_size=9))
    wanted = [data.draw(st.sampled_from([level, "a", "+", ""])) for level in granted]
    tails = st.sampled_from([[], ["#"], ["a"], ["+", "#"]])

    judge_topics("/".join(granted + data.draw(tails)), "/".join(wanted + data.draw(tails)))


@pytest.mark.parametrize("granted", LONG, ids=range(len(LONG)))
@pytest.mark.parametrize("wanted", LONG, ids=range(len(LONG)))
def test_the_longest_texts_are_judged_without_recursion(granted, wanted):
    judge_topics(granted, wanted)
    judge_template(granted, {"username": wanted[:9]})


@settings(quick, max_examples=200)
@given(
    st.lists(
        st.one_of(st.sampled_from(["{username}", "{client_id}", "{x}", "/", "+", "#"]), hostile), max_size=8
    ),
    hostile,
    hostile,
)
def test_a_template_fills_to_the_levels_it_has(parts, username, client_id):
    judge_template("".join(parts), {"username": username, "client_id": client_id})


# Bodies.

NAMES = [
    *("username", "password", "clientid", "client_id", "acc", "access", "action", "topic", "topics", "qos"),
    *("vhost", "resource", "name", "permission", "routing_key", "variable_map.username"),
    *("variable_map.client_id", "k", "format"),
]
WORDS = [
    *PEOPLE,
    *(person.secret for person in PEOPLE.values()),
    *("1", "2", "4", "publish", "subscribe", "write", "read", "/", "amq.topic", "exchange", "queue", "topic"),
    *("things/weatherstation/STATION-001/data", "things/weatherstation/STATION-001/cmd"),
    *("things.weatherstation.STATION-001.data", "$share/g/things/weatherstation/STATION-001/cmd"),
    *("mqtt-subscription-STATION-001qos1", "guest", "undefined", "null", ""),
]
texts = st.one_of(st.sampled_from(WORDS), hostile)
numbers = st.one_of(st.sampled_from([0, 1, 2, 4, -0.0, 2.0, True, None, 10**400]), st.integers(), st.floats())
values = st.recursive(
    st.one_of(texts, texts, numbers),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
pairs = st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), hostile), values), max_size=12)


def as_json(items: Any) -> bytes:
    """An object as text, with its names as often as they come."""
    return ("{" + ",".join(f"{_dump(name)}:{_dump(value)}" for name, value in items) + "}").encode(
        "utf-8", "surrogatepass"
    )


def _dump(value: Any) -> str:
    return "9" * 5_000 if value == 10**400 else json.dumps(value, ensure_ascii=False)


def as_form(items: Any) -> bytes:
    return urlencode([(n, _plain(v)) for n, v in items], errors="surrogatepass").encode()


def _plain(value: Any) -> str:
    return "9" * 5_000 if value == 10**400 else str(value)


BOMBS = [
    b"[" * 100_000,
    b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    b'{"username":' * 40_000,
    b"=&" * 60,
    b"a=b&" * 70,
    b"\xc0\xaf=\xc0\x80",  # overlong
    b'{"username":"\xed\xa0\x80"}',  # half a character
    b'{"username":"\xf4\x90\x80\x80"}',  # beyond the last one
    "{}".encode("utf-16"),
    b"\xef\xbb\xbf{}",
]
bodies = st.one_of(
    st.binary(max_size=120),
    st.sampled_from(BOMBS),
    pairs.map(as_json),
    pairs.map(as_form),
    values.map(lambda value: _dump(value).encode("utf-8", "surrogatepass")),
)
content_types = st.sampled_from(
    [JSON, FORM, JSON, FORM, "Application/JSON ; charset=latin-1", "text/html", ""]
)
bearers = st.one_of(
    st.sampled_from([f"Bearer {token}" for token in TOKENS.values()]),
    st.sampled_from(["Bearer", "bearer  ", "Basic eDp5", "Bearer a.b.c", "Bearer " + "x" * 9_000]),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
queries = st.one_of(
    st.just(""),
    pairs.map(lambda items: as_form(items).decode()),
    st.sampled_from(["format=text", "format=text&format=json", "%ff=1", "&", "%00=%00", "k=a&k=b"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20),
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Anything that an HTTP server may hand over."""
    headers = {"content-type": draw(content_types), "authorization": draw(bearers)}
    return Request(
        draw(st.sampled_from(oracles.METHODS)),
        draw(queries),
        oracles.pairs(headers),
        draw(bodies),
        oversized=draw(rarely),
    )


rarely = st.integers(0, 20).map(lambda number: number == 0)


@by_question
@settings(quick, max_examples=15)
@given(request=requests(), hook=rarely)
def test_whatever_is_asked_the_answer_is_right(path, request, hook):
    if not hook:
        request.headers += oracles.pairs({"vernemq-hook": f"auth_on_{path.partition('/')[2]}"})
    judge_body(path, request)


RIGHT = list(questions())


@pytest.mark.parametrize("number", range(len(RIGHT)))
def test_the_oracle_agrees_with_the_contracts(number):
    """Each case of the contracts is a seed, and the world of PEOPLE is theirs."""
    judge_body(*RIGHT[number])


def test_the_seeds_reach_an_allow_of_every_question():
    reached = {path for path, request in RIGHT if oracles.permitted(path, request)}

    assert reached == set(QUESTIONS)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, Request]:
    """A case of the contracts with one thing wrong: bytes of the body, a field, another's question."""
    path, right = draw(st.sampled_from(RIGHT))
    body, headers = right.body, oracles.named(right)
    place = draw(st.integers(0, max(0, len(body))))
    kind = draw(
        st.sampled_from(["cut", "insert", "flip", "field", "twice", "path", "type", "bearer", "method"])
    )
    method = right.method
    if kind == "cut":
        body = body[:place]
    elif kind == "insert":
        added = st.one_of(st.binary(max_size=4), hostile.map(lambda t: t.encode("utf-8", "surrogatepass")))
        body = body[:place] + draw(added) + body[place:]
    elif kind == "flip" and body[place:]:
        body = body[:place] + bytes([draw(st.integers(0, 255))]) + body[place + 1 :]
    elif kind in ("field", "twice"):
        body = _with_field(body, draw(st.sampled_from(NAMES)), draw(values), twice=kind == "twice")
    elif kind == "path":
        path = draw(st.sampled_from(QUESTIONS))
    elif kind == "type":
        headers["content-type"] = draw(content_types)
    elif kind == "bearer":
        headers["authorization"] = draw(bearers)
    else:
        method = draw(st.sampled_from(oracles.METHODS))
    return path, Request(method, right.query, oracles.pairs(headers), body, oversized=right.oversized)


def _with_field(body: bytes, name: str, value: Any, *, twice: bool) -> bytes:
    """*body* with *name* set to *value*, beside what it says already or in place of it."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return body + b"&" + as_form([(name, value)])
    if not isinstance(fields, dict):
        return body
    return as_json([*(item for item in fields.items() if twice or item[0] != name), (name, value)])


@settings(quick, max_examples=400)
@given(mutated())
def test_a_right_question_with_one_thing_wrong_is_answered_right(case):
    judge_body(*case)


@by_question
@settings(quick, max_examples=25)
@given(st.data())
def test_a_permitted_question_in_other_words_is_answered_right(path, data):
    """One or two fields say something else that is said somewhere, or are said beside what was asked."""
    right = data.draw(st.sampled_from([r for p, r in RIGHT if p == path and oracles.permitted(p, r)]))
    body = right.body
    for _ in range(data.draw(st.integers(1, 2))):
        body = _with_field(
            body,
            data.draw(st.sampled_from(NAMES)),
            data.draw(st.one_of(st.sampled_from([1, 2, 4, True, 2.0]), st.sampled_from(WORDS))),
            twice=False,
        )

    judge_body(path, Request(right.method, right.query, right.headers, body))


@by_question
@pytest.mark.parametrize(
    "hostile_id", ["+", "#", "a/b", "x\x00", "\u202eSTATION-001", "STATION-001\u200b", "\ufffd"]
)
def test_a_hostile_name_is_nobody(path, hostile_id):
    """In place of every name and every client id, one at a time."""
    rights = [(p, r) for p, r in RIGHT if p == path and r.body and oracles.permitted(p, r)]
    for name in ("username", "clientid", "client_id"):
        for _, right in rights:
            body = _with_field(right.body, name, hostile_id, twice=False)
            judge_body(path, Request(right.method, right.query, right.headers, body))
    assert rights or path in ("jwt/user", "jwt/superuser")  # which may come without a body


def test_two_words_for_the_action_must_agree():
    rights = [r for p, r in RIGHT if p == "emqx/authz" and oracles.permitted(p, r)]
    for right, name in itertools.product(rights, ("action", "access")):
        for word in ("publish", "subscribe", "1", "2", "3"):
            body = _with_field(right.body, name, word, twice=False)
            judge_body("emqx/authz", Request(right.method, right.query, right.headers, body))
    assert rights


def test_the_oracle_notices_a_wrong_answer():
    """A ruler that measures everything as right would be none."""
    path, request = next((p, r) for p, r in RIGHT if p == "go-auth/user" and oracles.permitted(p, r))
    dialect = BY_NAME["go-auth"]
    allow = oracles.answer(path, request)
    refuse = dialect.render(request, deny(Reason.NO_GRANT))
    stranger = Request("POST", "", request.headers, b"{}")

    for asked, reply in ((request, refuse), (stranger, allow), (stranger, dialect.fault(stranger))):
        with pytest.raises(AssertionError):
            oracles.judge_reply(path, asked, reply)
    with pytest.raises(AssertionError):
        oracles.judge_reply(path, request, allow, admitted=False)


# The inputs of `script/bench fuzz`.


@pytest.mark.parametrize("target", sorted(SEEDS))
def test_each_seed_holds_what_is_promised(target):
    for seed in SEEDS[target]():
        oracles.TARGETS[target](seed)


def test_a_question_survives_as_bytes():
    for path, right in RIGHT:
        data = oracles.written(path, right.method, right.query, oracles.named(right), right.body)
        found, request = oracles.question_of(data)

        assert (found, request.method, request.query) == (path, right.method, right.query)
        assert request.body == right.body
        assert oracles.permitted(path, request) or not oracles.permitted(path, right) or right.oversized


def test_an_input_is_replayed_without_atheris(tmp_path):
    seed = tmp_path / "seed"
    seed.write_bytes(next(SEEDS["body"]()))

    def replay(file: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench", "fuzz", "body", "--replay", str(file)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done, missing = replay(seed), replay(tmp_path / "nothing")

    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "POST go-auth/user?")
    assert (missing.returncode, missing.stdout) == (2, "")


# Hashes.

secrets = st.one_of(
    st.just(PASSWORD),
    st.sampled_from(
        ["", "\x00", PASSWORD + "\x00", "x" * 4_096, "x" * 4_097, "é" * 2_049, "\ud800", "p" * 73]
    ),
    hostile,
)
NUMBERS = [
    "0",
    "1",
    "00001",
    "-1",
    "2000001",
    "999999999",
    "9" * 12,
    "\u0661",
    "\u0661\u0660",
    "1e9",
    "0x10",
    "",
]
hash_scraps = st.one_of(
    st.sampled_from(
        [*"$=,.+/{}", "$2b$", "$argon2id$", "m=", "t=", "p=", "{SSHA256}", "PBKDF2", "\n", *NUMBERS]
    ),
    hostile,
)


@settings(quick, max_examples=300)
@given(
    secrets,
    st.one_of(st.sampled_from(sorted(HASHES.values())), st.lists(hash_scraps, max_size=8).map("".join)),
)
def test_any_password_against_any_text(secret, stored):
    judge_hash(secret, stored)


@settings(quick, max_examples=400)
@given(secrets, st.sampled_from(sorted(HASHES)), st.data())
def test_a_hash_with_one_thing_wrong_is_no_open_door(secret, name, data):
    stored = HASHES[name]
    start = data.draw(st.integers(0, len(stored)))
    end = data.draw(st.integers(start, min(len(stored), start + 4)))

    judge_hash(secret, stored[:start] + data.draw(hash_scraps) + stored[end:])


@pytest.mark.parametrize("name", sorted(HASHES))
@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_of_a_hash_lets_a_huge_cost_through(name, number):
    """Each number in turn; a digit of another script is no digit of a hash."""
    stored = HASHES[name]
    for position, part in enumerate(parts := _numbers(stored)):
        if part.isdigit():
            changed = "".join([*parts[:position], number, *parts[position + 1 :]])
            judge_hash(PASSWORD, changed)
            if not number.isascii():
                with pytest.raises(passwords.UnusableHash):
                    passwords.scheme_of(changed)


def _numbers(stored: str) -> list[str]:
    """*stored* in parts, its costs apart from the rest."""
    return re.split(r"(?<=[$=])(\d+)(?=[,$])", stored)


@pytest.mark.parametrize("name", sorted(HASHES))
def test_the_oracle_knows_each_scheme(name):
    judge_hash(PASSWORD, HASHES[name])

    assert passwords.verify(PASSWORD, HASHES[name])
    assert oracles.made_from(PASSWORD.encode(), HASHES[name])
    assert not oracles.made_from(b"another", HASHES[name])


def test_spare_bits_of_bcrypt_are_zero():
    """passlib would mend them and warn, which is an error where warnings are."""
    stored = HASHES["bcrypt"]

    for place in (28, 59):
        for letter in set("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") - {
            stored[place]
        }:
            judge_hash(PASSWORD, stored[:place] + letter + stored[place + 1 :])


@pytest.mark.parametrize("name", sorted(HASHES))
def test_a_password_and_nul_is_another_password(name):
    """PBKDF2 fills up its key with NUL, so to it the two are the same."""
    for secret in (PASSWORD + "\x00", PASSWORD + "\x00\x00", "\x00"):
        judge_hash(secret, HASHES[name])


def test_work_for_nobody_can_be_done_with_every_text():
    """It is what an unknown name costs; a fault there would tell who is known."""
    for secret in ("", "\x00", "\ud800", "é" * 2_048, "x" * 4_096):
        assert not passwords.verify(secret, passwords.NOBODY)


# Tokens.

PARTS = [base64.urlsafe_b64decode(part + "==") for part in TOKENS["STATION-001"].split(".")]


def _encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def judge_token(token: str) -> None:
    """Whoever a token names, we signed it for them."""
    try:
        claims = tokens.verify(token, oracles.OPTIONS.jwt_keys)
    except (InvalidToken, ExpiredToken):
        return
    assert claims == Claims(oracles._holder(f"Bearer {token}") or "", 7)


@settings(quick, max_examples=400)
@given(st.data())
def test_a_token_with_something_wrong_is_none_of_ours(data):
    token = TOKENS["STATION-001"]
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, min(len(token), start + 3)))
    scrap = data.draw(st.one_of(st.sampled_from([".", "=", "-", "_", "A", "\n", " "]), hostile))

    judge_token(token[:start] + scrap + token[end:])


headers_of_tokens = st.one_of(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), values).map(_dump),
    st.fixed_dictionaries(
        {
            "alg": st.sampled_from(["HS256", "none", "ES256", "HS512", "hs256", None, 1, []]),
            "kid": st.just("k"),
        }
    ).map(json.dumps),
    st.sampled_from(
        ["[" * 5_000, '{"a":' * 900, "null", "1", '"x"', "", '{"alg":"HS256","kid":' + "1" * 4_400]
    ),
).map(lambda text: text.encode("utf-8", "surrogatepass"))
claims_of_tokens = st.one_of(
    st.dictionaries(st.sampled_from(["sub", "iat", "exp", "ver", "nbf"]), values).map(_dump),
    st.fixed_dictionaries(
        {
            "sub": values,
            "exp": st.one_of(st.just(oracles.FOREVER), numbers.filter(lambda n: n != 10**400)),
            "iat": st.one_of(st.just(0), values.filter(lambda n: n != 10**400)),
            "ver": st.one_of(st.just(7), values.filter(lambda n: n != 10**400)),
        }
    ).map(_dump),
    st.sampled_from(["[" * 3_000, "null", "[]", '"x"', ""]),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@settings(quick, max_examples=150)
@given(headers_of_tokens, st.one_of(st.just(PARTS[1]), claims_of_tokens), st.booleans())
def test_no_header_makes_a_token(header, claims, signed):
    """Signed with our key or not: its header is a stranger's choice until the signature was right."""
    text = f"{_encode(header)}.{_encode(claims)}"
    secret = oracles.OPTIONS.jwt_keys[0].signing.encode()
    proof = hmac.digest(secret, text.encode(), hashlib.sha256) if signed else b"x" * 32
    token = f"{text}.{_encode(proof)}"
    try:
        found = tokens.verify(token, oracles.OPTIONS.jwt_keys)
    except (InvalidToken, ExpiredToken):
        return
    assert signed
    assert (found.username, found.version) == (json.loads(claims)["sub"], json.loads(claims)["ver"])
    assert json.loads(claims)["exp"] > time.time()


def test_a_header_that_nests_too_deep_is_no_fault(monkeypatch):
    """PyJWT before 2.11 let the error of the JSON parser through."""

    def too_deep(_token: str) -> None:
        raise RecursionError

    monkeypatch.setattr(tokens.jwt, "get_unverified_header", too_deep)

    with pytest.raises(InvalidToken):
        tokens.verify("a.b.c", [Key("k", "HS256", "x" * 32, "x" * 32)])


# The entrance.


async def _site(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("a question was passed on to the site")


@pytest.fixture(scope="module")
def broker(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """The token of a broker that may ask about the people of the oracle."""
    with django_db_blocker.unblock():
        row = Broker(name="fuzz")
        token = row.issue_token()
        row.save()
        yield token
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def knock(loop, broker, settings, django_db_blocker):
    """Send one HTTP request to the entrance, message by message; the reply, and whether it was one."""
    settings.AUTHSVC_DIRECTORIES = ["rig.oracles.Known"]
    settings.AUTHSVC_JWT_KEYS = {"k": oracles.OPTIONS.jwt_keys[0].signing}
    entrance = Entrance(_site)

    async def one(messages: list[dict[str, Any]], **scope: Any) -> Reply:
        waiting, sent = iter(messages), []

        async def receive() -> dict[str, Any]:
            return next(waiting, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        known = {"type": "http", "method": "POST", "query_string": b"", "headers": [], "client": None}
        await entrance({**known, **scope}, receive, send)
        start, end = sent
        if scope.get("method") != "HEAD":
            assert dict(start["headers"])[b"content-length"] == str(len(end["body"])).encode()
        return Reply(start["status"], end["body"], dict(start["headers"])[b"content-type"].decode())

    with django_db_blocker.unblock():
        assert options().jwt_keys == oracles.OPTIONS.jwt_keys
        yield lambda messages, **scope: loop.run(one(messages, **scope))
        loop.run(reader.close())


def in_pieces(body: bytes, cuts: list[int]) -> list[dict[str, Any]]:
    """*body* as the messages of a server, cut at *cuts*; a message may leave out what has a default."""
    places = sorted([0, *(cut % (len(body) + 1) for cut in cuts), len(body)])  # some are empty
    parts = [body[a:b] for a, b in itertools.pairwise(places)] or [b""]
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": p, "more_body": True} for p in parts]
    messages[-1].pop("more_body")
    return messages


odd_headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"Authorization",
                b"x-broker-secret",
                b"content-type",
                b"content-length",
                b"expect",
                b"\xff",
                b"",
            ]
        ),
        st.one_of(st.binary(max_size=12), st.sampled_from([JSON.encode(), FORM.encode(), b"Bearer x"])),
    ),
    max_size=2,
)
proofs = st.sampled_from(["path", "query", "path", "query", "none", "part", "two"])
in_sessions = settings(quick, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(in_sessions, max_examples=250)
@given(mutated(), st.lists(st.integers(0, 400), max_size=4), st.one_of(st.just([]), odd_headers), proofs)
def test_the_entrance_answers_as_the_oracle_says(knock, broker, case, cuts, odd, proof):
    """In pieces, with headers that come twice or are no text, and proved in one way, in none, or in two."""
    path, request = case
    sent = list(request.headers)
    of_the_client = path.startswith("jwt/")
    sent = [header for header in sent if of_the_client or header[0] not in PROOFS] + odd
    in_query = {"query": f"k={broker}", "part": f"k={broker[:-1]}", "two": f"k={broker}&k={broker}x"}.get(
        proof
    )
    request.query = "&".join(part for part in (request.query, in_query) if part)

    reply = knock(
        in_pieces(request.body, cuts),
        method=request.method,
        path=f"/mqtt/k/{broker}/{path}" if proof == "path" else f"/mqtt/{path}",
        query_string=request.query.encode("latin-1"),
        headers=sent,
    )

    joined: dict[str, str] = {}
    for name, value in ((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in sent):
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    request = Request(
        request.method,
        request.query,
        oracles.pairs(joined),
        request.body,
        oversized=request.oversized,
    )
    beside = not of_the_client and any(name.lower() in PROOFS for name, _ in odd)
    oracles.judge_reply(path, request, reply, admitted=proof in ("path", "query") and not beside)


PROOFS = (b"authorization", b"x-broker-secret")


def test_a_header_that_comes_twice_is_neither(knock, broker):
    """A proxy and we would not agree which one counts."""
    path, right = next((p, r) for p, r in RIGHT if p == "go-auth/user" and oracles.permitted(p, r))
    kind, url = (b"content-type", JSON.encode()), f"/mqtt/k/{broker}/{path}"

    once = knock(in_pieces(right.body, []), path=url, headers=[kind])
    twice = knock(in_pieces(right.body, []), path=url, headers=[kind, kind])

    assert oracles.reads_as_allow(path, once)
    assert oracles.reads_as_deny(path, twice)


@settings(in_sessions, max_examples=60)
@given(requests(), st.sampled_from(QUESTIONS), st.lists(st.integers(0, 400), max_size=4))
def test_a_stranger_gets_nothing(knock, request_, path, cuts):
    """Without the proof of a broker whatever is asked reads as a deny, and never as a fault."""
    headers = list(request_.headers)
    query = request_.query.encode("latin-1")

    reply = knock(
        in_pieces(request_.body, cuts),
        method=request_.method,
        path=f"/mqtt/{path}",
        query_string=query,
        headers=headers,
    )

    oracles.judge_reply(path, request_, reply, admitted=False)


odd_paths = st.one_of(
    st.sampled_from(
        ["", "/", "k", "k/", "k//go-auth/user", "go-auth", "go-auth/", "go-auth//user", "GO-AUTH/user"]
    ),
    st.sampled_from(
        ["go-auth/user/", "../mqtt/go-auth/user", "k/a/b/go-auth/user", "go-auth/user\x00", "emqx/user"]
    ),
    hostile,
    hostile.map(lambda text: f"k/{text}/go-auth/acl"),
)


@settings(in_sessions, max_examples=60)
@given(odd_paths, st.sampled_from(["POST", "GET", "HEAD", "DELETE", "post", "", "\xff"]))
@example("k/\ud800/go-auth/user", "POST")
def test_an_odd_path_leads_nowhere(knock, path, method):
    reply = knock([{"type": "http.request"}], path=f"/mqtt/{path}", method=method)

    assert reply.status in (404, 405) or oracles.reads_as_deny("go-auth/acl", reply)


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.request", "more_body": True}, {"type": "http.request"}],
        [{"type": "http.request", "more_body": True}],  # and then the client is gone
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}],
        [{"type": "http.disconnect"}],
        [{"type": "http.request", "body": b"", "more_body": True}] * 5_000,
        [{"type": "http.request", "body": b" " * 65_536, "more_body": True}] * (MAX_BODY // 65_536 + 2),
    ],
    ids=["empty pieces", "half a body", "a torn body", "no body", "many empty pieces", "too much"],
)
def test_a_body_that_never_comes_is_a_deny(knock, broker, messages):
    reply = knock(messages, path=f"/mqtt/k/{broker}/go-auth/user", headers=[(b"content-type", JSON.encode())])

    assert oracles.reads_as_deny("go-auth/user", reply)
