"""The one door for questions: translate, ask, translate.

What cannot be read is a deny; a bug or a missing database is logged and answered as a fault, in the words of
the broker that asked. Neither is ever an allow.
"""

from __future__ import annotations

from functools import partial

import structlog

from authsvc import answers, callers, changes, denials, directory, policy, renewals, verifier
from authsvc.conf import options
from authsvc.core import authority
from authsvc.core.access import LoginQuestion, Reason, Refused, Verdict, deny
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Dialect, Reply, Request
from authsvc.policy import Policy
from authsvc.remembered import Stamp

log = structlog.get_logger(__name__)


async def answer(request: Request, dialect: Dialect) -> Reply:
    """The reply to *request*, in the words of *dialect*. Never raises."""
    try:
        request.options = options()  # here, because a wrong setting is a fault of ours too
        stamp = changes.stamp()
        now = await policy.current(stamp)
        kept = answers.recall(request, dialect, now, stamp)
        if kept is not None:
            verdict, reply = kept.verdict, kept.reply
        else:
            try:
                verdict = await judge(request, dialect, now, stamp)
            except Refused as refusal:
                verdict = deny(refusal.reason)
            reply = dialect.render(request, verdict)
            answers.keep(request, dialect, now, verdict, reply)
    except Exception:
        log.exception("auth.fault", dialect=dialect.name, question=request.question)
        return dialect.fault(request)
    _note(dialect, request, verdict)
    return reply


def _note(dialect: Dialect, request: Request, verdict: Verdict) -> None:
    """Remember what is written off the path. The answer does not depend on whether that succeeds."""
    try:
        if verdict.allowed:
            renewals.note(verdict)
        else:
            denials.note(dialect.name, request.question, verdict)
    except Exception:
        log.exception("auth.not_noted", dialect=dialect.name)


async def judge(request: Request, dialect: Dialect, now: Policy, stamp: Stamp | None) -> Verdict:
    """Strangers are turned away before anything is read or looked up; then the authority decides."""
    if not now.admits(callers.token(request, dialect), dialect.name, request.peer):
        return deny(Reason.UNKNOWN_CALLER)
    question = dialect.questions[request.question](request)
    recognised = partial(verifier.recognises, question.password) if type(question) is LoginQuestion else None
    view = directory.View(stamp, recognised)
    return await authority.decide(question, now.rules, view, verify=verifier.verify)


def find(path: str) -> tuple[Dialect, str, str | None] | None:
    """Dialect, question and path token of `<dialect>/<question>` or `k/<token>/<dialect>/<question>`."""
    parts = path.split("/")
    token = None
    if len(parts) == 4 and parts[0] == "k":
        token, parts = parts[1], parts[2:]
    if len(parts) != 2:
        return None
    dialect = BY_NAME.get(parts[0])
    if dialect is None or parts[1] not in dialect.questions:
        return None
    return dialect, parts[1], token
