"""The settings of authsvc: typed, read on use, documented here."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import settings as django_settings
from django.utils.encoding import force_bytes

from authsvc import caches
from authsvc.core.tokens import MIN_KEY_BYTES, Key
from authsvc.dialects.base import Options
from authsvc.errors import AuthsvcError

REFRESH_SECONDS = 150.0
UNIX = "unix"  # The entry of TRUSTED_PROXIES for peers of unix sockets, which have no address.
LABEL = b"authsvc: HS256 key of device tokens, 1"  # Another label would revoke all issued tokens.

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Settings:
    """The settings that an operator can set, AUTHSVC_* in the Django settings."""

    @property
    def directories(self) -> list[str]:
        """AUTHSVC_DIRECTORIES: dotted paths of the directories of principals; all are searched."""
        default = ["authsvc.directory.AccountDirectory"]
        return list(getattr(django_settings, "AUTHSVC_DIRECTORIES", default))

    @property
    def bind_client_ids(self) -> bool:
        """AUTHSVC_CLIENT_ID: `bound` (a client connects under its own client ids) or `any`."""
        return bool(getattr(django_settings, "AUTHSVC_CLIENT_ID", "bound") != "any")

    @property
    def emqx_rules_ttl(self) -> int:
        """AUTHSVC_EMQX_RULES_TTL: seconds that EMQX may cache the rules of a client."""
        return int(getattr(django_settings, "AUTHSVC_EMQX_RULES_TTL", 3600))

    @property
    def rabbitmq_vhost(self) -> str:
        """AUTHSVC_RABBITMQ_VHOST: the one virtual host that MQTT clients may use."""
        return str(getattr(django_settings, "AUTHSVC_RABBITMQ_VHOST", "/"))

    @property
    def rabbitmq_exchange(self) -> str:
        """AUTHSVC_RABBITMQ_EXCHANGE: the topic exchange of RabbitMQ's MQTT plugin (its `mqtt.exchange`)."""
        return str(getattr(django_settings, "AUTHSVC_RABBITMQ_EXCHANGE", "amq.topic"))

    @property
    def url(self) -> str:
        """AUTHSVC_URL: the address at which brokers reach this service, for their generated configuration."""
        return str(getattr(django_settings, "AUTHSVC_URL", "") or "http://127.0.0.1:8000")

    @property
    def has_url(self) -> bool:
        """Whether AUTHSVC_URL is set."""
        return bool(getattr(django_settings, "AUTHSVC_URL", ""))

    @property
    def stale_seconds(self) -> int:
        """AUTHSVC_STALE_SECONDS: while PostgreSQL is down, cached reads are used up to this age."""
        return int(getattr(django_settings, "AUTHSVC_STALE_SECONDS", 300))

    @property
    def cache_size(self) -> int:
        """AUTHSVC_CACHE_SIZE: principals in the cache of one process, about 3 KiB each."""
        return int(getattr(django_settings, "AUTHSVC_CACHE_SIZE", 20_000))

    @property
    def max_body(self) -> int:
        """AUTHSVC_MAX_BODY: maximum bytes of a body that the ASGI entrance passes to the site."""
        return int(getattr(django_settings, "AUTHSVC_MAX_BODY", 2_621_440))

    @property
    def uploads(self) -> dict[str, int]:
        """AUTHSVC_UPLOADS: maximum bytes of a body by the beginning of the path, for upload routes."""
        return dict(getattr(django_settings, "AUTHSVC_UPLOADS", {}))

    @property
    def listen_dsn(self) -> str:
        """AUTHSVC_LISTEN_DSN: a direct connection to PostgreSQL if DATABASE_URL leads to a pooler. A secret."""
        return str(getattr(django_settings, "AUTHSVC_LISTEN_DSN", ""))

    @property
    def upgrade_hashes(self) -> bool:
        """AUTHSVC_UPGRADE_HASHES: replace an imported slow hash by a quick one at its next login.

        This applies to passwords of 22 characters or more that look generated. Others need their slow hash.
        """
        return bool(getattr(django_settings, "AUTHSVC_UPGRADE_HASHES", False))

    @property
    def keep_audit(self) -> object:
        """AUTHSVC_KEEP_AUDIT: the time to keep entries of the audit, two years by default; empty is for ever."""
        return getattr(django_settings, "AUTHSVC_KEEP_AUDIT", "730d")

    @property
    def trusted_proxies(self) -> list[str]:
        """TRUSTED_PROXIES: networks whose `X-Forwarded-For` is trusted; `unix` for unix sockets."""
        return list(getattr(django_settings, "TRUSTED_PROXIES", ()))

    @property
    def jwt_keys(self) -> tuple[Key, ...]:
        """AUTHSVC_JWT_KEYS: keys by id, the first signs; a secret is HS256, a PEM private key ES256.

        Without it one HS256 key is derived from SECRET_KEY, but not from SECRET_KEY_FALLBACKS. Raises InvalidKeys.
        """
        configured = getattr(django_settings, "AUTHSVC_JWT_KEYS", None)
        if not configured:
            return (_derived(force_bytes(django_settings.SECRET_KEY)),)
        return tuple(_key(kid, text) for kid, text in configured.items())


class InvalidProxy(AuthsvcError, ValueError):
    """An entry of TRUSTED_PROXIES is not a network."""


class InvalidKeys(AuthsvcError, ValueError):
    """AUTHSVC_JWT_KEYS holds an invalid key."""


def _derived(secret: bytes) -> Key:
    """Return the key of tokens, derived from *secret* by HKDF (RFC 5869) with LABEL."""
    if len(secret) < MIN_KEY_BYTES and not django_settings.DEBUG:
        raise InvalidKeys(
            f"SECRET_KEY, from which the key of tokens is derived, has fewer than {MIN_KEY_BYTES} bytes"
        )
    derived = HKDF(SHA256(), length=32, salt=None, info=LABEL).derive(secret)
    return Key("default", "HS256", derived, derived)


def _key(kid: str, text: str) -> Key:
    if not text.lstrip().startswith("-----BEGIN"):
        if len(text.encode()) < MIN_KEY_BYTES:
            raise InvalidKeys(f"the key {kid} has fewer than {MIN_KEY_BYTES} bytes")
        if text.encode() == force_bytes(django_settings.SECRET_KEY):
            raise InvalidKeys(f"the key {kid} is SECRET_KEY itself, which signs other things")
        return Key(kid, "HS256", text, text)
    try:
        private = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidKeys(f"the key {kid} is not a PEM private key without a passphrase") from error
    if not isinstance(private, EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        raise InvalidKeys(f"the key {kid} is not on the curve P-256, which ES256 needs")
    return Key(kid, "ES256", private, private.public_key())


settings = Settings()


@functools.cache
def options() -> Options:
    """Return the options of dialects, cached until a setting changes (in tests)."""
    return Options(
        rabbitmq_vhost=settings.rabbitmq_vhost,
        rabbitmq_exchange=settings.rabbitmq_exchange,
        emqx_rules_ttl=settings.emqx_rules_ttl,
        jwt_keys=settings.jwt_keys,
    )


class Limits(NamedTuple):
    """The bounds of caches of database reads: seconds, seconds, entries."""

    stale_seconds: int
    refresh_seconds: float
    cache_size: int


@functools.cache
def limits() -> Limits:
    """Return the limits, cached until a setting changes.

    A used entry is read again after half of *stale_seconds*, so that it is young enough at an outage. A change that
    fired no trigger is noticed after this time too.
    """
    stale = settings.stale_seconds
    return Limits(stale, stale / 2 if stale > 0 else REFRESH_SECONDS, settings.cache_size)


def cache_size() -> int:
    """Return the number of entries of each bounded cache of reads or answers."""
    return limits().cache_size


@functools.cache
def _limits_of_bodies() -> tuple[int, tuple[tuple[str, int], ...]]:
    longest_first = sorted(settings.uploads.items(), key=lambda item: -len(item[0]))
    return settings.max_body, tuple(longest_first)


def limit_of_body(path: str) -> int:
    """Return the maximum bytes of the body of a request for *path*; the longest matching beginning applies."""
    limit, uploads = _limits_of_bodies()
    return next((more for beginning, more in uploads if path.startswith(beginning)), limit)


@functools.cache
def trusted_proxies() -> frozenset[Network | str]:
    """Return the trusted proxies, cached until a setting changes. An invalid entry trusts no peer."""
    found: set[Network | str] = set()
    for entry in settings.trusted_proxies:
        with contextlib.suppress(InvalidProxy):
            found.add(proxy(entry))
    return frozenset(found)


def proxy(entry: str) -> Network | str:
    """Return the network that *entry* of TRUSTED_PROXIES names, or UNIX. Raise InvalidProxy."""
    if entry == UNIX:
        return UNIX
    if not isinstance(entry, str):  # ip_network() would accept a number as an address.
        raise InvalidProxy(f"{entry!r} is not a text")
    try:
        network = ipaddress.ip_network(entry)
    except ValueError as error:
        raise InvalidProxy(str(error)) from error
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None:
        return network
    if network.prefixlen < 96:
        raise InvalidProxy(f"{entry} holds all IPv4 addresses")
    return ipaddress.ip_network((mapped, network.prefixlen - 96))


for _cached in (options, limits, _limits_of_bodies, trusted_proxies):
    caches.register(_cached.cache_clear)
