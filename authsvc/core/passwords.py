"""Passwords: generated here with 256 random bits, or imported as a hash of another system. Pure.

A stored hash names the cost of its verification. That cost is checked before any work is done, because the limits of
passlib do not apply to verify().
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
# bcrypt reads only these bytes of a password. As in other implementations, the rest is dropped without an error.
BCRYPT_BYTES: Final = 72
LENGTH: Final = 43  # A letter or digit holds 5.95 bits, so 43 of them hold 256.
ALPHABET: Final = string.ascii_letters + string.digits  # Without `-`, which joins the cache keys of go-auth.

# A secret of 256 random bits cannot be guessed, so one salted SHA-256 is enough (NIST SP 800-63B, 5.1.2).
# A thousand devices that reconnect at once then cost milliseconds.
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
    """The stored text is not an accepted password hash: its scheme is unknown, or it is truncated or too expensive."""


class Scheme(NamedTuple):
    """A format of stored hash. *limits* are upper bounds of the numbers that *pattern* names (cost, memory, lanes).

    Patterns fix the length of the digest, so that a truncated hash is not accepted. mosquitto-go-auth lets an
    operator choose the length; a truncated hash of it still has 16 bytes or more, and matches no other password.
    """

    name: str
    pattern: re.Pattern[str]
    limits: dict[str, int]


_B64 = r"[A-Za-z0-9+/]"
_BASE64 = rf"(?:{_B64}{{4}})*(?:{_B64}{{4}}|{_B64}{{3}}=|{_B64}{{2}}==)"
_UNPADDED_KEY = rf"(?:(?:{_B64}{{4}}){{5,42}}{_B64}{{2,3}}|(?:{_B64}{{4}}){{6,42}})"  # 16 to 128 bytes.
_KEY = rf"(?:{_B64}{{22}}==|{_B64}{{23}}=|(?:{_B64}{{4}}){{6,42}}(?:{_B64}{{3}}=|{_B64}{{2}}==)?)"  # 16 to 128 bytes
_AB64 = r"[A-Za-z0-9./]"  # The alphabet of passlib, with `.` for `+`.
# So many rounds of PBKDF2 take about half a second.
ROUNDS: Final = {"cost": 2_000_000}
SCHEMES: Final = (
    Scheme("generated", re.compile(rf"\{{SSHA256\}}{_B64}{{54}}=="), {}),
    Scheme(
        "argon2id",
        re.compile(
            r"\$argon2id\$v=19\$m=(?P<memory>[0-9]+),t=(?P<cost>[0-9]+),p=(?P<lanes>[0-9]+)"
            rf"\${_B64}{{11,86}}\${_UNPADDED_KEY}"
        ),
        {"memory": 262_144, "cost": 16, "lanes": 16},  # KiB, passes and threads.
    ),
    # The last letter of salt and digest has unused bits. They must be zero; passlib would correct others and warn.
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
    """Return a new secret of 256 random bits, in letters and digits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def hash_generated(secret: str) -> str:
    """Return the hash to store for a secret from generate(). Do not use it for passwords that a person chose."""
    return str(_GENERATED.hash(secret))


def hash_chosen(secret: str) -> str:
    """Return the hash to store for a password that a person chose (argon2id)."""
    return str(_CHOSEN.hash(secret))


def scheme_of(stored: str) -> Scheme:
    """Return the scheme of a stored hash after a check of its cost. Raise UnusableHash with the reason."""
    for scheme in SCHEMES:
        match = scheme.pattern.fullmatch(stored)
        if match is None:
            continue
        for number, limit in scheme.limits.items():
            found = match[number]
            if found is not None and (len(found) > 9 or not 1 <= int(found) <= limit):
                raise UnusableHash(f"{scheme.name}: {number.rstrip('23')} {found[:12]} is not in 1..{limit}")
        return scheme
    raise UnusableHash("the hash has no accepted scheme, or is not complete")


def is_fast(stored: str) -> bool:
    """Return whether verifying *stored* takes microseconds. False for a text that cannot be verified."""
    return stored.startswith(("{SSHA256}", "$6$"))


def verify(secret: str, stored: str) -> bool:
    """Return whether *stored* was made from *secret*. Raise UnusableHash, which depends on *stored* alone."""
    if too_long(secret):
        return False
    # A secret with NUL is refused below; some schemes would raise in the middle of their work.
    encoded = _bytes(secret).replace(b"\x00", b"\x01")
    scheme = scheme_of(stored)
    if scheme.name in _OWN:
        match = scheme.pattern.fullmatch(stored)
        assert match is not None  # noqa: S101 - scheme_of() matched it.
        right = _verify_own(encoded, scheme.name, match)
    else:
        context = {"generated": _GENERATED, "argon2id": _CHOSEN}.get(scheme.name, _IMPORTED)
        right = _passlib(context, encoded[:BCRYPT_BYTES] if scheme.name == "bcrypt" else encoded, stored)
    # Checked after the work, so that the time does not show the result. HMAC, and so PBKDF2, pads its key with NUL:
    # a password and the same password with a NUL appended would match.
    return right and bool(secret) and "\x00" not in secret


def reads_all(secret: str, stored: str) -> bool:
    """Return whether a verification with *stored* reads every byte of *secret*; bcrypt reads 72."""
    return not stored.startswith("$2") or len(_bytes(secret)) <= BCRYPT_BYTES


def too_long(secret: str) -> bool:
    """Return whether *secret* has more than MAX_BYTES bytes."""
    if len(secret) * 4 <= MAX_BYTES:
        return False
    return len(secret) > MAX_BYTES or len(_bytes(secret)) > MAX_BYTES


def with_utf8_salt(stored: str) -> str:
    """Return the go-auth hash *stored*, whose salt is plain text, with the salt in base64.

    The option `salt_encoding` of go-auth is not in the hash: the operator gives it at import.
    """
    kind, algorithm, cost, salt, digest = stored.split("$")
    return "$".join((kind, algorithm, cost, base64.b64encode(salt.encode()).decode(), digest))


def _bytes(secret: str) -> bytes:
    """Return the bytes of *secret* to hash. Half a surrogate pair is encoded too: it matches no password."""
    return secret.encode("utf-8", "surrogatepass")


def _passlib(context: CryptContext, secret: bytes, stored: str) -> bool:
    try:
        return bool(context.verify(secret, stored))
    except (ValueError, TypeError) as error:
        raise UnusableHash("the hash cannot be verified") from error


_OWN: Final = frozenset({"mosquitto sha512", "mosquitto pbkdf2", "go-auth pbkdf2"})


def _verify_own(secret: bytes, name: str, match: re.Match[str]) -> bool:
    """Verify hashes of mosquitto_passwd (`$6$` and `$7$`, unlike those of crypt) and of go-auth (`PBKDF2$`)."""
    salt, digest = base64.b64decode(match["salt"]), base64.b64decode(match["digest"])
    if name == "mosquitto sha512":
        made = hashlib.sha512(secret + salt).digest()
    else:
        algorithm = match["algorithm"] if name == "go-auth pbkdf2" else "sha512"
        made = hashlib.pbkdf2_hmac(algorithm, secret, salt, int(match["cost"]), len(digest))
    return hmac.compare_digest(made, digest)


# A password is compared with this hash if there is no stored one, so that the check takes the same time.
DUMMY_HASH: Final = hash_generated(generate())
