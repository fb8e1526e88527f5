"""The policy for all questions, as one frozen object: the brokers and the grants of operators."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import structlog
from django.db import connections

from authsvc import callers, logs
from authsvc.conf import limits, settings
from authsvc.core import grants
from authsvc.core.authority import Rules
from authsvc.core.grants import ActionSet
from authsvc.credentials import UNTIL_USED
from authsvc.dialects import ELSEWHERE
from authsvc.dialects.base import Dialect, Request
from authsvc.freshness import read_cache, reader, triggers
from authsvc.freshness.read_cache import ReadCache, Stamp
from authsvc.models import Broker, Grant, digest

ADMITTED = 1_000  # Cached proofs of admitted callers; a broker has few of them.

T = TypeVar("T")
log = structlog.get_logger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BROKERS = (
    "SELECT id, name, token_digest, previous_token_digest, previous_token_until, dialects, networks "
    f"FROM {Broker._meta.db_table} WHERE is_active"
)
GRANTS = (
    "SELECT id, subject, effect, actions, filter, valid_from, valid_until "
    f"FROM {Grant._meta.db_table} ORDER BY id"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """An active broker with one of its tokens: the dialects and the networks that it may use.

    Empty is any, but for the dialects of other apps, which a broker must name.

    *until* is the Unix time at which the token expires. *retires* is the digest of the previous token if that is
    accepted only until this one is used.
    """

    dialects: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    pk: int = 0
    name: str = ""
    token_digest: str = field(default="", repr=False)
    is_previous: bool = False
    until: float | None = None
    retires: str = field(default="", repr=False)

    def has_expired(self) -> bool:
        """Return whether the token was the previous one, and its overlap has ended."""
        return self.until is not None and time.time() >= self.until

    def admits(self, dialect: str, peer: str) -> bool:
        """Return whether this broker may ask in *dialect* from the address *peer*."""
        if dialect not in self.dialects and (self.dialects or dialect in ELSEWHERE):
            return False
        if not self.networks:
            return True
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # An IPv4 caller of a dual-stack socket.
        return any((mapped or address) in network for network in self.networks)


@dataclass(frozen=True, eq=False)
class Policy:
    """Brokers by the digest of their token, and the rules for all questions."""

    callers: Mapping[str, Caller] = field(default_factory=dict, repr=False)
    rules: Rules = field(default_factory=Rules)
    _admitted: dict[Hashable, Caller] = field(default_factory=dict, repr=False)

    def caller_of(self, request: Request, dialect: Dialect) -> Caller | None:
        """Return the active broker of *request*; None if it may not ask in *dialect* from its address."""
        proof = callers.proof(request, dialect)
        caller = self._admitted.get(proof)
        if caller is not None:
            return None if caller.has_expired() else caller
        token = callers.token(request, dialect)
        caller = self.callers.get(digest(token)) if token else None
        if caller is None or caller.has_expired() or not caller.admits(dialect.name, request.peer):
            return None
        # Proofs of a GET are not cached, because its query also holds the fields.
        if request.method == "POST" and len(self._admitted) < ADMITTED:
            self._admitted[proof] = caller
        return caller


class _Loaded(NamedTuple):
    """The policy of the last load. *fingerprint* identifies the state of its tables, *at* is monotonic time."""

    policy: Policy
    fingerprint: Hashable
    at: float

    def is_old(self) -> bool:
        """Return whether the load must be repeated even if the fingerprint is equal."""
        return time.monotonic() - self.at > limits().refresh_seconds

    def matches(self, fingerprint: Hashable) -> bool:
        """Return whether the policy is that of tables with *fingerprint*."""
        return fingerprint is not None and fingerprint == self.fingerprint and not self.is_old()


_loaded = _Loaded(Policy(), None, 0.0)
_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


def cached(stamp: Stamp | None) -> Policy | None:
    """Return the cached policy if it is valid, or None."""
    return None if _loaded.is_old() else _policies.peek(triggers.POLICY, stamp)


async def current(stamp: Stamp | None = None) -> Policy:
    """Return the current policy, from the cache if it is valid under *stamp*."""
    policy = cached(stamp) or await _policies.read(triggers.POLICY, stamp)
    assert policy is not None  # noqa: S101 - _read() returns one or raises.
    return policy


async def read_now() -> Policy:
    """Return the policy in the database, past all caches, which belong to the event loop that answers brokers."""
    return await _load()


async def _read(_: str) -> Policy:
    """Return the policy in the database. Load the tables only if their fingerprint has changed.

    A load with the same content returns the same object, so that answers that depend on it stay cached.
    """
    global _loaded
    began = time.monotonic()
    # Read first: a change during the load then changes the next fingerprint.
    fingerprint = await _fingerprint()
    if not _loaded.matches(fingerprint):
        async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if not _loaded.matches(fingerprint):  # All waiting questions share one load.
                found, before = await _load(), _loaded.policy
                same = found.callers == before.callers and found.rules == before.rules
                _loaded = _Loaded(before if same else found, fingerprint, began)
    return _loaded.policy


async def _fingerprint() -> Hashable:
    """Return a value that differs after each change of the tables; None while a trigger is missing.

    The revision counts changes, but not those made while triggers were disabled. So the fingerprint also differs after
    triggers were disabled or created again, the file of the database was replaced, or a new listening session began.
    """
    invalidated = read_cache.counts.invalidated
    revision, whole, generation = await state()
    if revision is None or not whole:
        return None
    return revision, generation, reader.sqlite_file(), invalidated, settings.bind_client_ids


async def state() -> tuple[int | None, bool, str]:
    """Return the stored revision, whether all triggers that raise it exist, and their generation."""
    sqlite = reader.is_sqlite(connections.settings["default"]["ENGINE"])
    [(revision, whole, generation)] = await reader.fetch(
        triggers.REVISION["sqlite" if sqlite else "postgresql"]
    )
    return revision, bool(whole), str(generation)


_policies: ReadCache[Policy] = ReadCache(_read)


async def _load() -> Policy:
    current, previous = {}, {}
    for pk, name, token, previous_token, until, dialects, networks in await reader.fetch(BROKERS):
        try:
            caller = _caller(pk, name, token, _list(dialects), _list(networks))
            end = reader.moment(until) if previous_token else None
        except (ValueError, TypeError, AttributeError):
            # Written past the model: only this broker is refused.
            logs.error(log, "policy.broker_unreadable")
            continue
        if end is not None:  # Without an end the previous token is refused.
            previous[previous_token] = replace(
                caller, token_digest=previous_token, is_previous=True, until=end
            )
            caller = replace(caller, retires=previous_token if end == UNTIL_USED.timestamp() else "")
        current[token] = caller
    always: dict[str, list[grants.Rule]] = {}
    periods: dict[str, list[grants.Period]] = {}
    for pk, subject, effect, actions, text, begins, ends in await reader.fetch(GRANTS):
        rule = grants.Rule(text, ActionSet(actions), effect == Grant.Effect.ALLOW, f"grant {pk}")
        try:
            period = grants.Period(rule, reader.moment(begins), reader.moment(ends))
        except (ValueError, TypeError, AttributeError):
            # Written past the model, which SQLite allows: a deny holds at any time then, and an allow at none.
            logs.error(log, "policy.period_unreadable")
            if rule.allow:
                continue
            period = grants.Period(rule)
        if period.begins is None and period.ends is None:
            always.setdefault(subject, []).append(rule)
        else:
            periods.setdefault(subject, []).append(period)
    rules = Rules(_frozen(always), settings.bind_client_ids, _frozen(periods))
    return Policy(previous | current, rules)


def _frozen(by_subject: Mapping[str, list[T]]) -> dict[str, tuple[T, ...]]:
    return {subject: tuple(found) for subject, found in by_subject.items()}


def _caller(pk: int, name: str, token: str, dialects: list[str], networks: list[str]) -> Caller:
    found = tuple(ipaddress.ip_network(network) for network in networks)
    return Caller(frozenset(dialects), found, pk, name, token)


def _list(value: Any) -> list[str]:
    """Return the list in a JSON column, which is a text on SQLite. Raise ValueError unless it is a list of texts."""
    found = json.loads(value) if isinstance(value, str) and value[:1] in '["{' else value
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise ValueError("not a list of texts")
    return found
