"""What the modules of brokers have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from string import Template
from typing import NamedTuple
from urllib.parse import urlsplit


class Address(NamedTuple):
    """The place where a broker reaches this service. An IPv6 *host* has brackets; *path* does not end in a slash."""

    is_tls: bool
    host: str
    port: int
    path: str


def _none(address: Address) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class BrokerSoftware:
    """A broker as it is sold: the dialect in which it asks, and its configuration, ready to paste.

    A blank line parts the files of *template*; each file begins with a comment that names it. *cache* is what lets
    the broker keep answers, or empty; *placeholders* gives values that only this template has.
    """

    dialect: str
    template: str
    cache: str = ""
    placeholders: Callable[[Address], Mapping[str, str]] = _none

    def configuration(self, url: str, token: str, cache: timedelta | None = None) -> str:
        """Return the configuration of a broker that reaches this service at *url* and presents *token*.

        With *cache* it keeps answers about topics for that time; only a broker with a cache can.
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
