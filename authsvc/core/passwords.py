"""Passwords: made here with 256 random bits, or brought along as another system's hash. Pure.

A stored hash says how costly it is to verify. That cost is read and bounded before any work is done, because
passlib's own limits do not hold for verify().
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import string
from typing import Final, NamedTuple

from passlib.context import CryptContext

from authsvc.errors import AuthsvcError

MAX_BYTES: Final = 4_096
BCRYPT_BYTES: Final = (
    72  # bcrypt reads no more of a password; like everybody, drop the rest instead of failing
)
LENGTH: Final = 43  # letters and digits hold 5.95 bits each: 43 of them hold 256
ALPHABET: Final = string.ascii_letters + string.digits  # no `-`: go-auth joins its cache key with it

# A secret of 256 random bits cannot be guessed, so one salted SHA-256 is enough (NIST SP 800-63B, 5.1.2),
# and a thousand devices that reconnect at once cost milliseconds.
_GENERATED = CryptContext(schemes=["ldap_salted_sha256"])
_CHOSEN = CryptContext(schemes=["argon2"], argon2__type="ID")
_IMPORTED = CryptContext(
    schemes=[
        "bcrypt",
        "pbkdf2_sha256",
        "pbkdf2_sha512",
        "pbkdf2_sha1",
        "django_pbkdf2_sha256",
        "django_pbkdf2_sha1",
    ]
)


class UnusableHash(AuthsvcError, ValueError):
    """The stored text is no password hash that is accepted here: unknown, truncated, or too costly."""


class Scheme(NamedTuple):
    """A form of stored hash. *limits* bound the numbers that *pattern* names (cost, memory, lanes).

    Patterns fix the length of the digest, so that a truncated hash is not accepted. mosquitto-go-auth lets an
    operator choose the length; a truncated hash of its form still has 16 bytes or more, and matches no other password.
    """

    name: str
    pattern: re.Pattern[str]
    limits: dict[str, int]


_B64 = r"[A-Za-z0-9+/]"
_BASE64 = rf"(?:{_B64}{{4}})*(?:{_B64}{{4}}|{_B64}{{3}}=|{_B64}{{2}}==)"
_UNPADDED_KEY = rf"(?:(?:{_B64}{{4}}){{5,42}}{_B64}{{2,3}}|(?:{_B64}{{4}}){{6,42}})"  # 16 to 128 bytes
_KEY = rf"(?:{_B64}{{22}}==|{_B64}{{23}}=|(?:{_B64}{{4}}){{6,42}}(?:{_B64}{{3}}=|{_B64}{{2}}==)?)"  # 16 to 128 bytes
_AB64 = r"[A-Za-z0-9./]"  # passlib's own alphabet, with `.` for `+`
ROUNDS: Final = {"cost": 2_000_000}  # of PBKDF2: about half a second
SCHEMES: Final = (
    Scheme("generated", re.compile(rf"\{{SSHA256\}}{_B64}{{54}}=="), {}),
    Scheme(
        "argon2id",
        re.compile(
            r"\$argon2id\$v=19\$m=(?P<memory>[0-9]+),t=(?P<cost>[0-9]+),p=(?P<lanes>[0-9]+)"
            rf"\${_B64}{{11,86}}\${_UNPADDED_KEY}"
        ),
        {"memory": 262_144, "cost": 16, "lanes": 16},  # KiB, passes, threads
    ),
    # Salt and digest each end in a letter with spare bits. They are zero; passlib would mend others, and warn.
    Scheme(
        "bcrypt",
        re.compile(
            r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"
        ),
        {"cost": 14},
    ),
    Scheme(
        "passlib pbkdf2",
        re.compile(
            rf"\$pbkdf2(?:-sha256\$(?P<cost>[0-9]+)\${_AB64}{{0,1366}}\${_AB64}{{43}}"
            rf"|-sha512\$(?P<cost2>[0-9]+)\${_AB64}{{0,1366}}\${_AB64}{{86}}"
            rf"|\$(?P<cost3>[0-9]+)\${_AB64}{{0,1366}}\${_AB64}{{27}})"
        ),
        {"cost": ROUNDS["cost"], "cost2": ROUNDS["cost"], "cost3": ROUNDS["cost"]},
    ),
    Scheme(
        "django pbkdf2",
        re.compile(
            rf"pbkdf2_(?:sha256\$(?P<cost>[0-9]+)\$[^$]{{1,64}}\${_B64}{{43}}="
            rf"|sha1\$(?P<cost2>[0-9]+)\$[^$]{{1,64}}\${_B64}{{27}}=)"
        ),
        {"cost": ROUNDS["cost"], "cost2": ROUNDS["cost"]},
    ),
    Scheme(
        "mosquitto sha512",
        re.compile(rf"\$6\$(?P<salt>{_BASE64})\$(?P<digest>{_B64}{{86}}==)"),
        {},
    ),
    Scheme(
        "mosquitto pbkdf2",
        re.compile(rf"\$7\$(?P<cost>[0-9]+)\$(?P<salt>{_BASE64})\$(?P<digest>{_B64}{{86}}==)"),
        ROUNDS,
    ),
    Scheme(
        "go-auth pbkdf2",
        re.compile(
            rf"PBKDF2\$(?P<algorithm>sha1|sha256|sha512)\$(?P<cost>[0-9]+)"
            rf"\$(?P<salt>{_BASE64})\$(?P<digest>{_KEY})"
        ),
        ROUNDS,
    ),
)


def generate() -> str:
    """A new secret of 256 random bits, in letters and digits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def hash_generated(secret: str) -> str:
    """The hash to store for a secret from generate(). Not for passwords that a person chose."""
    return str(_GENERATED.hash(secret))


def hash_chosen(secret: str) -> str:
    """The hash to store for a password that a person chose (argon2id)."""
    return str(_CHOSEN.hash(secret))


def scheme_of(stored: str) -> Scheme:
    """The scheme of a stored hash, its cost checked. Raises UnusableHash, which says what is wrong."""
    for scheme in SCHEMES:
        match = scheme.pattern.fullmatch(stored)
        if match is None:
            continue
        for number, limit in scheme.limits.items():
            found = match[number]
            if found is not None and (len(found) > 9 or not 1 <= int(found) <= limit):
                raise UnusableHash(f"{scheme.name}: {number.rstrip('23')} {found[:12]} is not in 1..{limit}")
        return scheme
    raise UnusableHash("the hash is of no accepted scheme, or not whole")


def is_fast(stored: str) -> bool:
    """Whether verifying *stored* takes microseconds. False for what cannot be verified."""
    return stored.startswith(("{SSHA256}", "$6$"))


def verify(secret: str, stored: str) -> bool:
    """Return whether *stored* was made from *secret*. Raise UnusableHash, which depends on *stored* alone."""
    if too_long(secret):
        return False
    # A secret with NUL is refused below; some schemes refuse it in the middle of their work.
    encoded = _bytes(secret).replace(b"\x00", b"\x01")
    scheme = scheme_of(stored)
    if scheme.name in _OWN:
        match = scheme.pattern.fullmatch(stored)
        assert match is not None  # noqa: S101 - scheme_of() matched it
        right = _verify_own(encoded, scheme.name, match)
    else:
        context = {"generated": _GENERATED, "argon2id": _CHOSEN}.get(scheme.name, _IMPORTED)
        right = _passlib(context, encoded[:BCRYPT_BYTES] if scheme.name == "bcrypt" else encoded, stored)
    # Said after the work, because neither may be told by time. HMAC, and so PBKDF2, fills up its key with NUL:
    # to it a password and the same with a NUL behind it are one.
    return right and bool(secret) and "\x00" not in secret


def reads_all(secret: str, stored: str) -> bool:
    """Return whether every byte of *secret* counts where it is verified with *stored*; bcrypt reads 72."""
    return not stored.startswith("$2") or len(_bytes(secret)) <= BCRYPT_BYTES


def too_long(secret: str) -> bool:
    if len(secret) * 4 <= MAX_BYTES:
        return False
    return len(secret) > MAX_BYTES or len(_bytes(secret)) > MAX_BYTES


def with_utf8_salt(stored: str) -> str:
    """A go-auth hash whose salt is meant as text, with the salt in base64 as it is stored here.

    go-auth's option `salt_encoding` is not in the hash: the operator says it at import.
    """
    kind, algorithm, cost, salt, digest = stored.split("$")
    return "$".join((kind, algorithm, cost, base64.b64encode(salt.encode()).decode(), digest))


def _bytes(secret: str) -> bytes:
    """What is hashed: half a character is no reason to fail, and matches nothing."""
    return secret.encode("utf-8", "surrogatepass")


def _passlib(context: CryptContext, secret: bytes, stored: str) -> bool:
    try:
        return bool(context.verify(secret, stored))
    except (ValueError, TypeError) as error:
        raise UnusableHash("the hash cannot be verified") from error


_OWN: Final = frozenset({"mosquitto sha512", "mosquitto pbkdf2", "go-auth pbkdf2"})


def _verify_own(secret: bytes, name: str, match: re.Match[str]) -> bool:
    """mosquitto_passwd's `$6$` and `$7$`, which are not crypt's, and go-auth's `PBKDF2$`."""
    salt, digest = base64.b64decode(match["salt"]), base64.b64decode(match["digest"])
    if name == "mosquitto sha512":
        made = hashlib.sha512(secret + salt).digest()
    else:
        algorithm = match["algorithm"] if name == "go-auth pbkdf2" else "sha512"
        made = hashlib.pbkdf2_hmac(algorithm, secret, salt, int(match["cost"]), len(digest))
    return hmac.compare_digest(made, digest)


# What a password is compared with where nobody has one.
DUMMY_HASH: Final = hash_generated(generate())
