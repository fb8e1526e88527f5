"""Types that the modules of brokers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from string import Template
from typing import NamedTuple
from urllib.parse import urlsplit

from authsvc.errors import AuthsvcError

NO_URL = re.compile(r"[^\w\-.~:/\[\]%@]")  # Also white space and quotes.


# The names of brokers for people, by dialect.
NAMES: Mapping[str, str] = {
    "go-auth": "mosquitto, go-auth",
    "jwt": "mosquitto, go-auth with tokens",
    "emqx": "EMQX 5 and 6",
    "emqx4": "EMQX 4",
    "nanomq": "NanoMQ",
    "rabbitmq": "RabbitMQ",
    "vernemq": "VerneMQ",
    "amqtt": "aMQTT",
}


class InvalidAddress(AuthsvcError, ValueError):
    """A text that is not the address of this service."""


def host_of(url: str) -> str:
    """Return the host in the service's address *url*, as a Host header has it. Raise InvalidAddress."""
    try:
        parts = urlsplit(url)
        whole = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        whole = False
    # Other characters could break the configuration, or make a plugin log the URL with the token.
    if not whole or parts.username is not None or parts.query or parts.fragment or NO_URL.search(url):
        raise InvalidAddress("is not the address of this service; write http://host:8000")
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host


class Address(NamedTuple):
    """The address at which a broker reaches this service. An IPv6 *host* has brackets; *path* has no final slash."""

    is_tls: bool
    host: str
    port: int
    path: str


def _none(address: Address) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class BrokerSoftware:
    """A broker product: the dialect in which it asks, its name for people, and its configuration, ready to paste.

    A blank line separates the files of *template*; each file begins with a comment that names it. *cache* is the part
    that makes the broker cache answers, or empty; *placeholders* returns values that only this template needs.
    """

    dialect: str
    name: str
    template: str
    cache: str = ""
    placeholders: Callable[[Address], Mapping[str, str]] = _none

    def configuration(self, url: str, token: str, cache: timedelta | None = None) -> str:
        """Return the configuration of a broker that reaches this service at *url* and presents *token*.

        With *cache* it caches answers about topics for that time. Only brokers with a cache support it.
        """
        parts = urlsplit(url)
        host = parts.hostname or "localhost"
        if ":" in host:  # Without brackets mosquitto-go-auth cannot read its URL, and logs it with the token.
            host = f"[{host}]"
        is_tls = parts.scheme == "https"
        address = Address(is_tls, host, parts.port or (443 if is_tls else 80), parts.path.rstrip("/"))
        return Template(self.template + (self.cache if cache else "")).substitute(
            self.placeholders(address),
            url=url.rstrip("/"),
            path=address.path,
            host=host,
            port=address.port,
            token=token,
            seconds=int(cache.total_seconds()) if cache else "",
        )
