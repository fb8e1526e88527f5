"""The address of the client behind a connection. Networks of brokers, denials, logs and throttles all use it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from django.http import HttpRequest

from authsvc.conf import UNIX, Network, trusted_proxies

HEADER = b"x-forwarded-for"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def of_scope(peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the client's address for a connection from *peer* with the ASGI *headers*.

    It is *peer*, unless *peer* is a trusted proxy. Headers are only read in that case.
    """
    proxies = trusted_proxies()
    if not proxies:
        return peer
    values = [value.decode("latin-1") for name, value in headers if name.lower() == HEADER]
    return _behind(peer, ",".join(values), proxies)


def of_request(request: HttpRequest) -> str:
    """Return the address of the client that sent *request*; empty if it cannot be determined."""
    peer = request.META.get("REMOTE_ADDR") or ""
    proxies = trusted_proxies()
    return _behind(peer, request.META.get("HTTP_X_FORWARDED_FOR", ""), proxies) if proxies else peer


def subscriber(address: str) -> str:
    """Return the part of *address* that one subscriber holds: an IPv4 address, or the first 64 bits of IPv6.

    >>> subscriber("2001:db8::17:2"), subscriber("::ffff:192.0.2.7"), subscriber("")
    ('2001:db8::', '192.0.2.7', '')
    """
    found = parse(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found), 64), strict=False).network_address)
    return "" if found is None else str(found)


def parse(text: str) -> Address | None:
    """Return the address in *text*, which may have a port; None for anything else. IPv4 in IPv6 becomes IPv4.

    >>> [str(parse(text)) for text in ("192.0.2.7:5678", "[2001:db8::1]:443", "::ffff:192.0.2.7", "unknown")]
    ['192.0.2.7', '2001:db8::1', '192.0.2.7', 'None']
    """
    text = text.strip()
    host, port = text, "0"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:] if rest else "0"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _behind(peer: str, forwarded: str, proxies: frozenset[Network | str]) -> str:
    """Return the last entry of *forwarded* that is not a trusted proxy, or *peer* where *peer* is not one.

    An entry that is not an address ends the search without an answer: entries left of it are not reliable.
    If all entries are trusted proxies, the first one is the client.
    """
    if not _is_trusted(peer, proxies):
        return peer
    client = peer
    for entry in reversed(forwarded.split(",")) if forwarded.strip() else ():
        address = parse(entry)
        if address is None:
            return ""
        client = str(address)
        if not _is_trusted(client, proxies):
            break
    return client


def _is_trusted(peer: str, proxies: frozenset[Network | str]) -> bool:
    if not peer:
        return UNIX in proxies
    address = parse(peer)
    return address is not None and any(not isinstance(proxy, str) and address in proxy for proxy in proxies)
