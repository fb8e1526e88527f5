"""Answers that were given, kept for as long as all that they follow from is the same.

A broker asks the same about each message of a device, and a device logs in with the same words after each
interruption. Such an answer follows from the bytes of the request, the policy, the principal and whom its client
id names; so it is kept with these, and given again only while they are the very objects that the database still
stands for, and before the time at which it would be another one (a token ends, EMQX is given a later end of its
rules). A refused login is never kept, nor is a password or a token: those are known by a keyed digest.
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
from authsvc.policy import Policy

MAX_BYTES = 2_048  # of a body and query that are kept
CHECKED_SECONDS = 1.0  # for which nothing having changed is enough; then its parts show their age


class Answer:
    """A reply, what is noted of it and where it is counted, and what it follows from.

    *verdict* is None where there is nothing to note. *client_id* is set where its claimants were asked for. *until*
    is the Unix time at which it ends by the clock.
    """

    __slots__ = (
        "_checked",
        "claimants",
        "client_id",
        "policy",
        "principal",
        "reply",
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
        until: float | None,
    ) -> None:
        self.reply = reply
        self.verdict = verdict
        self.tally = tally
        self.policy = policy
        self.principal = principal
        self.client_id = client_id
        self.claimants = claimants
        self.until = until
        self._checked: tuple[Stamp | None, int, float] = (None, 0, 0.0)

    def is_current(self, stamp: Stamp | None) -> bool:
        """Whether it would be given again, as far as memory can tell."""
        if self.until is not None and time.time() >= self.until:
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
        self._checked = (stamp, invalidated, now + CHECKED_SECONDS)
        return True


_KEYED = hashlib.blake2b(key=secrets.token_bytes(32))  # of this process: its digests mean nothing outside it
# The answer that was put longest ago makes room. An answer that is still asked for is put again once it ended.
_answers: BoundedCache[Hashable, Answer] = BoundedCache(cache_size)


def find(request: Request, dialect: Dialect, stamp: Stamp | None) -> Answer | None:
    """The answer that this very request got, if it would get it again."""
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
) -> None:
    """Keep *reply* for the next request of the same bytes, unless it follows from more than they and memory."""
    question, principal, cache = verdict.question, verdict.principal, directory.cached_chain()
    if principal is None or question is None or cache is None or stamp is None:
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
    ends = [end for end in (reply.until, question.client.valid_until) if end is not None]
    until = min(ends, default=None)
    noted = None if verdict.allowed else verdict  # a login that renews something changes its principal
    answer = Answer(reply, noted, tally, policy, principal, client_id, claimants, until)
    _answers.put(_key(request, dialect), answer)


def _is_cacheable(login: Verdict) -> bool:
    """Whether a login is allowed by a password without an end, and brings nothing about."""
    if not login.allowed or login.secret is None or login.principal is None:
        return False
    return login.secret.valid_until is None and not login.principal.retires_previous


def _key(request: Request, dialect: Dialect) -> Hashable:
    """All that a dialect, and the check of who calls, may read of a request."""
    body: bytes = request.body
    headers: Hashable = request.headers
    if dialect.authorization_is_the_clients:
        headers = _digest(repr(headers).encode())  # they hold the client's token
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
