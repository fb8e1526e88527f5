"""What all questions share, as one frozen object: the callers, the operators' grants, and their revision."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
from django.db import connections

from authsvc import callers, logs
from authsvc.conf import limits, settings
from authsvc.core import grants
from authsvc.core.authority import Rules
from authsvc.core.grants import ActionSet
from authsvc.dialects.base import Dialect, Request
from authsvc.freshness import read_cache, reader, triggers
from authsvc.freshness.read_cache import ReadCache, Stamp
from authsvc.models import Broker, Grant, digest

ADMITTED = 1_000  # proofs whose token was looked up already; brokers have few, and strangers are not kept

log = structlog.get_logger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BROKERS = f"SELECT token_digest, dialects, networks FROM {Broker._meta.db_table} WHERE is_active"
GRANTS = f"SELECT id, subject, effect, actions, filter FROM {Grant._meta.db_table} ORDER BY id"


@dataclass(frozen=True, slots=True)
class Caller:
    """An active broker: which dialects it may speak and where it may call from; empty is any."""

    dialects: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def admits(self, dialect: str, peer: str) -> bool:
        if self.dialects and dialect not in self.dialects:
            return False
        if not self.networks:
            return True
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 caller of a dual-stack socket
        return any((mapped or address) in network for network in self.networks)


@dataclass(frozen=True, eq=False)
class Policy:
    """Brokers by the digest of their token, and the rules that all questions are judged by."""

    callers: Mapping[str, Caller] = field(default_factory=dict, repr=False)
    rules: Rules = field(default_factory=Rules)
    _admitted: set[Hashable] = field(default_factory=set, repr=False)

    def admits(self, request: Request, dialect: Dialect) -> bool:
        """Whether *request* comes from an active broker that may ask in *dialect* from where it does."""
        proof = callers.proof(request, dialect)
        if proof in self._admitted:
            return True
        token = callers.token(request, dialect)
        caller = self.callers.get(digest(token)) if token else None
        if caller is None or not caller.admits(dialect.name, request.peer):
            return False
        if request.method == "POST" and len(self._admitted) < ADMITTED:  # the query of a GET holds more
            self._admitted.add(proof)
        return True


class _Loaded(NamedTuple):
    """The policy of the last load. *sign* stands for the tables that it was read from, *at* is monotonic time."""

    policy: Policy
    fingerprint: Hashable
    at: float

    def is_old(self) -> bool:
        return time.monotonic() - self.at > limits().refresh_seconds

    def matches(self, fingerprint: Hashable) -> bool:
        return fingerprint is not None and fingerprint == self.fingerprint and not self.is_old()


_loaded = _Loaded(Policy(), None, 0.0)
_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


def cached(stamp: Stamp | None) -> Policy | None:
    """Return the policy as the database has it now, or None if memory cannot tell."""
    return None if _loaded.is_old() else _policies.peek(triggers.POLICY, stamp)


async def current(stamp: Stamp | None = None) -> Policy:
    """Return the policy as the database has it now; from memory where *stamp* tells that it is the same."""
    policy = cached(stamp) or await _policies.read(triggers.POLICY, stamp)
    assert policy is not None  # noqa: S101 - _read() returns one or raises
    return policy


async def _read(_: str) -> Policy:
    """Return the policy as the database has it. The tables are loaded unless their sign says they are the same.

    A load that finds the same content returns the same object, so that the answers that follow from it stay.
    """
    global _loaded
    began = time.monotonic()
    fingerprint = await _fingerprint()  # first: a change during the load makes the next sign another one
    if not _loaded.matches(fingerprint):
        async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if not _loaded.matches(fingerprint):  # all questions that waited share one load
                found, before = await _load(), _loaded.policy
                same = found.callers == before.callers and found.rules == before.rules
                _loaded = _Loaded(before if same else found, fingerprint, began)
    return _loaded.policy


async def _fingerprint() -> Hashable:
    """Return what differs after each change of the tables; None while a trigger is missing.

    The revision counts changes. It misses those that were made while triggers were off, so the sign also differs
    once triggers were switched or made anew, another file took the place of the database, or a new listening
    session began.
    """
    invalidated = read_cache.counts.invalidated
    revision, whole, generation = await state()
    if revision is None or not whole:
        return None
    return revision, generation, reader.sqlite_file(), invalidated, settings.bind_client_ids


async def state() -> tuple[int | None, bool, str]:
    """Return the stored revision, whether all triggers that raise it are there, and their generation."""
    sqlite = reader.is_sqlite(connections.settings["default"]["ENGINE"])
    [(revision, whole, generation)] = await reader.fetch(
        triggers.REVISION["sqlite" if sqlite else "postgresql"]
    )
    return revision, bool(whole), str(generation)


_policies: ReadCache[Policy] = ReadCache(_read)


async def _load() -> Policy:
    callers = {}
    for token, dialects, networks in await reader.fetch(BROKERS):
        try:
            callers[token] = _caller(_list(dialects), _list(networks))
        except ValueError:  # written past the model: this broker is shut out, and no other
            logs.error(log, "policy.broker_unreadable")
    by_subject: dict[str, list[grants.Rule]] = {}
    for pk, subject, effect, actions, text in await reader.fetch(GRANTS):
        rule = grants.Rule(text, ActionSet(actions), effect == Grant.Effect.ALLOW, f"grant {pk}")
        by_subject.setdefault(subject, []).append(rule)
    rules = Rules({subject: tuple(found) for subject, found in by_subject.items()}, settings.bind_client_ids)
    return Policy(callers, rules)


def _caller(dialects: list[str], networks: list[str]) -> Caller:
    return Caller(frozenset(dialects), tuple(ipaddress.ip_network(network) for network in networks))


def _list(value: Any) -> list[str]:
    """A JSON column: SQLite gives its text, PostgreSQL what it holds. Raises ValueError for no list of texts."""
    found = json.loads(value) if isinstance(value, str) and value[:1] in '["{' else value
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise ValueError("no list of texts")
    return found
