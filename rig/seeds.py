"""Correct inputs of the parsers, for mutation: the cases of the contracts, and one hash of each scheme."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from passlib.hash import (
    argon2,
    bcrypt,
    django_pbkdf2_sha1,
    django_pbkdf2_sha256,
    pbkdf2_sha1,
    pbkdf2_sha256,
    pbkdf2_sha512,
)

from authsvc.core import passwords, tokens
from authsvc.dialects.base import FORM, MAX_BODY, Request
from rig import oracles

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parent.parent / "tests/contracts/cases.json").read_text()
)
SALT = bytes(range(12))
PASSWORD = "s3cret +%41é"


def pbkdf2(algorithm: str, password: str, rounds: int = 101) -> bytes:
    """Return the digest of *password* with SALT."""
    return hashlib.pbkdf2_hmac(algorithm, password.encode(), SALT, rounds)


def b64(value: bytes) -> str:
    """Return *value* in base64."""
    return base64.b64encode(value).decode()


def imported_hashes(password: str) -> dict[str, str]:
    """Return a hash of *password* in each form that other systems store."""
    return {
        "mosquitto sha512": f"$6${b64(SALT)}${b64(hashlib.sha512(password.encode() + SALT).digest())}",
        "mosquitto pbkdf2": f"$7$101${b64(SALT)}${b64(pbkdf2('sha512', password))}",
        "go-auth pbkdf2": f"PBKDF2$sha512$101${b64(SALT)}${b64(pbkdf2('sha512', password))}",
        "go-auth pbkdf2 sha256": f"PBKDF2$sha256$101${b64(SALT)}${b64(pbkdf2('sha256', password))}",
        "bcrypt": bcrypt.using(rounds=4).hash(password),
        "bcrypt 2a": bcrypt.using(rounds=4, ident="2a").hash(password),
        "argon2id": argon2.using(type="ID", rounds=1, memory_cost=64, parallelism=1).hash(password),
        "passlib pbkdf2 sha256": pbkdf2_sha256.using(rounds=100).hash(password),
        "passlib pbkdf2 sha512": pbkdf2_sha512.using(rounds=100).hash(password),
        "passlib pbkdf2 sha1": pbkdf2_sha1.using(rounds=100).hash(password),
        "django pbkdf2 sha256": django_pbkdf2_sha256.using(rounds=100).hash(password),
        "django pbkdf2 sha1": django_pbkdf2_sha1.using(rounds=100).hash(password),
    }


HASHES = {"generated": passwords.hash_generated(PASSWORD), **imported_hashes(PASSWORD)}


def body_of(body: Any) -> bytes:
    """Return the bytes of a body of the document."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if "$base64" in body:
        return base64.b64decode(body["$base64"])
    if "$fill" in body:
        fill = body["$fill"]
        filled: str = fill["prefix"] + fill["char"] * fill["count"] + fill["suffix"]
        return filled.encode()
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def questions() -> Iterator[tuple[str, Request]]:
    """Yield path and request, without the token of the broker, of each question among the cases."""
    for case in DOCUMENT["cases"]:
        url = urlsplit(case["endpoint"])
        path = re.sub(r"^/mqtt/(k/[^/]+/)?", "", url.path)
        if path not in oracles.QUESTIONS:
            continue
        query = "&".join(part for part in url.query.split("&") if part and not part.startswith("k="))
        headers = {name.lower(): _filled(value) for name, value in (case["headers"] or {}).items()}
        if case["content_type"] is not None:
            headers["content-type"] = case["content_type"]
        body = body_of(case["body"])
        whole = len(body) <= MAX_BODY
        yield (
            path,
            Request(
                case["method"], query, oracles.pairs(headers), body if whole else b"", oversized=not whole
            ),
        )
    # The document has no allowed case of this question.
    yield (
        "nanomq/superuser",
        Request("POST", "", oracles.pairs({"content-type": FORM}), b"clientid=ingest-1&username=ingest"),
    )


def _filled(text: str) -> str:
    return re.sub(r"\{\{(jwt[a-z-]*):([^}]+)\}\}", lambda match: _token(match[1], match[2]), text)


def _token(kind: str, username: str) -> str:
    if kind == "jwt-algnone":
        header = base64.urlsafe_b64encode(b'{"alg":"none","kid":"k"}').decode()
        return f"{header}.{oracles.TOKENS[username].split('.')[1]}."
    if kind == "jwt-badsig":
        return oracles.TOKENS[username].rpartition(".")[0] + "." + "A" * 43
    ends = -1 if kind == "jwt-expired" else oracles.FOREVER
    return tokens.issue(username, 7, oracles.OPTIONS.jwt_keys, ends, now=0)


def of_topic() -> Iterator[bytes]:
    """Yield the seeds of the target topic."""
    for granted, wanted in [
        ("things/+/STATION-001/#", "things/weatherstation/+/cmd"),
        ("#", "$SYS/broker"),
        ("+/#", "#"),
        ("/#", "/+/#"),
        ("$share/g/things/+/cmd", "things/#"),
        ("things/{username}/{client_id}/x", "$CONTROL/dynamic-security/v1"),
        ("/" * 3_000, "+/" * 3_000 + "#"),
    ]:
        yield oracles.PART.join([granted.encode(), wanted.encode(), b"STATION-001", "é\u202e$SYS".encode()])


def of_body() -> Iterator[bytes]:
    """Yield the seeds of the target body."""
    for path, request in questions():
        if len(request.body) <= 4_096:
            yield oracles.encode_question(
                path, request.method, request.query, oracles.named(request), request.body
            )


def of_hash() -> Iterator[bytes]:
    """Yield the seeds of the target hash."""
    for stored in HASHES.values():
        yield PASSWORD.encode() + oracles.PART + stored.encode()
        yield PASSWORD.encode() + b"\x00" + oracles.PART + stored.encode()
    for name in ("argon2id", "bcrypt", "mosquitto pbkdf2"):  # and with a cost beyond the bounds
        stored = re.sub(r"(?<=[$=])\d{1,3}(?=[,$])", "99", HASHES[name])
        yield PASSWORD.encode() + oracles.PART + stored.encode()


SEEDS = {"topic": of_topic, "body": of_body, "hash": of_hash}
