"""A cache of answers. An entry is valid while everything that it depends on is unchanged.

A broker asks the same about each message of a device, and a device logs in with the same request after each
interruption. The answer depends on the bytes of the request, the policy, the principal, its groups and the claimants
of its client id. It is cached with these objects, and used again only while the caches of database reads hold the same
objects, and before the time at which it changes (a token of the client or of the broker expires, a period of a
grant begins or ends, EMQX gets a later expiry of its rules). A refused login is never cached, nor is a password or a
token: a keyed digest takes their place.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Hashable

from authsvc import directory
from authsvc import policy as policies
from authsvc.caches import BoundedCache
from authsvc.conf import cache_size
from authsvc.core.access import LoginQuestion, Principal, Verdict
from authsvc.dialects.base import Dialect, Reply, Request
from authsvc.freshness.read_cache import Stamp, counts
from authsvc.operation.metrics import Tally
from authsvc.operation.notes import Note
from authsvc.policy import Caller, Policy

MAX_BYTES = 2_048  # Longer requests, body and query together, are not cached.
# Within this time an unchanged stamp is enough; after it the age of the cached objects is checked too.
CHECKED_SECONDS = 1.0


class Answer:
    """A cached reply, its verdict and its tally, and the objects that it depends on.

    *verdict* is None if it causes no denial. *client_id* is set if its claimants were read, *groups* if those of the
    principal were. *until* is the Unix time at which it expires; a clock that is set back ends it too. *note* counts
    how often it was used.
    """

    __slots__ = (
        "_checked",
        "caller",
        "claimants",
        "client_id",
        "groups",
        "note",
        "policy",
        "principal",
        "reply",
        "since",
        "tally",
        "until",
        "verdict",
    )

    def __init__(
        self,
        reply: Reply,
        verdict: Verdict | None,
        tally: Tally,
        policy: Policy,
        principal: Principal,
        client_id: str | None,
        claimants: set[str] | None,
        groups: frozenset[str] | None,
        until: float | None,
        caller: Caller,
        note: Note | None,
    ) -> None:
        self.reply = reply
        self.verdict = verdict
        self.tally = tally
        self.policy = policy
        self.principal = principal
        self.client_id = client_id
        self.claimants = claimants
        self.groups = groups
        self.until = until
        self.since = 0.0 if until is None else time.time()
        self.caller = caller
        self.note = note
        self._checked: tuple[Stamp | None, int, float] = (None, 0, 0.0)

    def is_current(self, stamp: Stamp | None) -> bool:
        """Return whether the caches still hold the objects that this answer depends on."""
        if self.until is not None and not self.since <= time.time() < self.until:
            return False
        stamp_then, invalidated_then, until = self._checked
        now = time.monotonic()
        if stamp == stamp_then and counts.invalidated == invalidated_then and now < until:
            return stamp is not None
        invalidated = counts.invalidated
        cache = directory.cached_chain()
        if cache is None or policies.cached(stamp) is not self.policy:
            return False
        if cache.principals.peek(self.principal.username, stamp) is not self.principal:
            return False
        if self.client_id is not None and cache.claimants.peek(self.client_id, stamp) is not self.claimants:
            return False
        if self.groups is not None and cache.groups.peek(self.principal.key, stamp) is not self.groups:
            return False
        self._checked = (stamp, invalidated, now + CHECKED_SECONDS)
        return True


_KEYED = hashlib.blake2b(key=secrets.token_bytes(32))  # A random key of this process.
_answers: BoundedCache[Hashable, Answer] = BoundedCache(cache_size)


def find(request: Request, dialect: Dialect, stamp: Stamp | None) -> Answer | None:
    """Return the cached answer of a request of the same bytes if it is still valid, or None."""
    answer = _answers.get(_key(request, dialect))
    return answer if answer is not None and answer.is_current(stamp) else None


def store(
    request: Request,
    dialect: Dialect,
    policy: Policy,
    stamp: Stamp | None,
    verdict: Verdict,
    reply: Reply,
    tally: Tally,
    note: Note | None,
) -> None:
    """Cache *reply* for requests of the same bytes, unless it depends on more than they and cached reads."""
    question, principal, cache = verdict.question, verdict.principal, directory.cached_chain()
    if principal is None or question is None or cache is None or stamp is None or request.caller is None:
        return
    if len(request.body) + len(request.query) > MAX_BYTES:
        return
    client_id = claimants = None
    if isinstance(question, LoginQuestion):
        if not _is_cacheable(verdict) or request.method != "POST" or request.question != dialect.login:
            return
        if principal.client_ids is not None and policy.rules.bind_client_ids:
            client_id = question.client.client_id
    if client_id is not None:
        claimants = cache.claimants.peek(client_id, stamp)
        if claimants is None:
            return
    ends = (reply.until, question.client.valid_until, request.caller.until, verdict.until)
    until = min((end for end in ends if end is not None), default=None)
    noted = None if verdict.allowed else verdict  # A login that renews credentials is not cached.
    groups, caller = verdict.groups, request.caller
    answer = Answer(reply, noted, tally, policy, principal, client_id, claimants, groups, until, caller, note)
    _answers.put(_key(request, dialect), answer)


def _is_cacheable(login: Verdict) -> bool:
    """Return whether *login* is allowed by a password that never expires, and changes no credentials."""
    if not login.allowed or login.secret is None or login.principal is None:
        return False
    return login.secret.valid_until is None and not login.principal.retires_previous


def _key(request: Request, dialect: Dialect) -> Hashable:
    """Return all parts of a request that a dialect or the check of the caller may read."""
    body: bytes = request.body
    headers: Hashable = request.headers
    if dialect.authorization_is_the_clients:
        headers = _digest(repr(headers).encode())  # They hold the client's token.
    elif request.question == dialect.login:
        body = _digest(body)
    return (
        dialect.name,
        request.question,
        request.method,
        request.query,
        request.path_token,
        request.peer,
        body,
        request.oversized,
        headers,
    )


def _digest(text: bytes) -> bytes:
    keyed = _KEYED.copy()
    keyed.update(text)
    return keyed.digest()
