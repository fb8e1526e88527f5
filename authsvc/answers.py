"""Answers to questions about topics, kept for as long as what they follow from is the same.

A broker asks the same about each message of a device. The answer follows from the bytes of the request, the
policy and the principal alone, not from the time; so it is kept with these two, and given again only while
both are the very objects that the database still stands for. Logins are never kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple

from django.core.signals import setting_changed

from authsvc import directory
from authsvc.conf import limits
from authsvc.core.access import LoginQuestion, Principal, Verdict
from authsvc.dialects.base import Dialect, Reply, Request
from authsvc.policy import Policy
from authsvc.remembered import Stamp

MAX_BYTES = 2_048  # of a body and query that are kept


class Answer(NamedTuple):
    """A verdict, its words, and what they follow from."""

    verdict: Verdict
    reply: Reply
    policy: Policy
    principal: Principal


_kept: OrderedDict[Hashable, Answer] = OrderedDict()


def recall(request: Request, dialect: Dialect, policy: Policy, stamp: Stamp | None) -> Answer | None:
    """The answer that this very request got, if it would get it again."""
    key = _key(request, dialect)
    answer = _kept.get(key) if key is not None else None
    if answer is None or answer.policy is not policy:
        return None
    memory = directory.remembering()
    if memory is None or memory.principals.peek(answer.principal.username, stamp) is not answer.principal:
        return None
    _kept.move_to_end(key)
    return answer


def keep(request: Request, dialect: Dialect, policy: Policy, verdict: Verdict, reply: Reply) -> None:
    """Keep *reply* for the next request of the same bytes."""
    question, principal = verdict.question, verdict.principal
    if principal is None or question is None or isinstance(question, LoginQuestion):
        return
    if dialect.authorization_is_the_clients:  # its tokens end by the clock
        return
    key = _key(request, dialect)
    if key is None or len(request.body) + len(request.query) > MAX_BYTES:
        return
    _kept[key] = Answer(verdict, reply, policy, principal)
    if len(_kept) > limits().cache_size:
        _kept.popitem(last=False)


def _key(request: Request, dialect: Dialect) -> Hashable | None:
    """All that a dialect, and the check of who calls, may read of a request."""
    if request.pairs is None:
        return None
    return (
        dialect.name,
        request.question,
        request.method,
        request.query,
        request.path_token,
        request.peer,
        request.body,
        request.pairs,
    )


def _forget(**_: Any) -> None:
    _kept.clear()


setting_changed.connect(_forget, dispatch_uid="authsvc.answers")
