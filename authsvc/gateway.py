"""The single entry point for questions: parse, decide, render.

An unreadable request is a deny. A bug or a missing database is logged and answered as a fault, in the dialect of the
broker. Neither is ever an allow.
"""

from __future__ import annotations

import time

import structlog

from authsvc import answer_cache, directory, logs, policy
from authsvc.conf import options
from authsvc.core import authority
from authsvc.core.access import LoginQuestion, Reason, Refused, Verdict, deny
from authsvc.dialects import DIALECTS
from authsvc.dialects.base import Dialect, Reply, Request
from authsvc.freshness import changes
from authsvc.freshness.read_cache import Stamp
from authsvc.logins import renewals, verifier
from authsvc.operation import denials, metrics, notes
from authsvc.operation.notes import Note
from authsvc.policy import Caller, Policy

log = structlog.get_logger(__name__)


async def answer(request: Request, dialect: Dialect) -> Reply:
    """Return the reply to *request* in *dialect*. Never raise."""
    since = time.perf_counter()
    verdict: Verdict | None = None
    note: Note | None = None
    try:
        stamp = changes.stamp()
        cached = answer_cache.find(request, dialect, stamp)
        if cached is not None:
            reply, verdict, tally, note = cached.reply, cached.verdict, cached.tally, cached.note
            request.caller_is_admitted = True  # Only answers to admitted callers are cached.
            if verdict is not None:
                request.caller = cached.caller  # For the denial.
        else:
            request.options = options()  # Read here, so that a wrong setting is answered as a fault.
            now = policy.cached(stamp) or await policy.current(stamp)
            verdict = await judge(request, dialect, now, stamp)
            reply = dialect.render(request, verdict)
            tally = metrics.tally(dialect.name, request.question, verdict)
            note = _note_of(dialect, request, verdict)
            answer_cache.store(request, dialect, now, stamp, verdict, reply, tally, note)
    except Exception:
        logs.error(log, "auth.fault", dialect=dialect.name, question=request.question)
        verdict, note, reply = None, None, dialect.fault(request)
        tally = metrics.tally(dialect.name, request.question, None)
    if verdict is not None:
        _note(dialect, request, verdict)
    if note is not None:
        note.count += 1
        note.at = since
        if not note.is_queued:
            _queue(dialect, note)
    tally.add(time.perf_counter() - since)
    return reply


def _note(dialect: Dialect, request: Request, verdict: Verdict) -> None:
    """Queue renewals and denials for the background thread. An error here does not change the answer."""
    try:
        if verdict.allowed:
            renewals.note(verdict)
        else:
            denials.note(dialect.name, request.question, verdict, request.peer, _name(request))
    except Exception:
        logs.error(log, "auth.not_noted", dialect=dialect.name)


def _name(request: Request) -> str:
    """Return the name of the broker that asked; empty for an unknown one."""
    return "" if request.caller is None else str(request.caller.name)


def _note_of(dialect: Dialect, request: Request, verdict: Verdict) -> Note | None:
    """Return the note that counts answers like this one. An error here does not change the answer."""
    if request.caller is None:
        return None
    try:
        return notes.of(request.caller, request.peer, verdict, is_login=request.question == dialect.login)
    except Exception:
        logs.error(log, "auth.not_noted", dialect=dialect.name)
        return None


def _queue(dialect: Dialect, note: Note) -> None:
    """Queue *note* for the background thread. An error here does not change the answer."""
    try:
        notes.queue(note)
    except Exception:  # Such as a thread that cannot start.
        logs.error(log, "auth.not_noted", dialect=dialect.name)


async def judge(request: Request, dialect: Dialect, now: Policy, stamp: Stamp | None) -> Verdict:
    """Return the verdict on *request*. Deny unknown callers before any parsing or look-up."""
    request.caller = now.caller_of(request, dialect)
    if request.caller is None:
        return deny(Reason.UNKNOWN_CALLER)
    request.caller_is_admitted = True
    try:
        question = dialect.questions[request.question](request)
    except Refused as refusal:
        return deny(refusal.reason)
    if type(question) is not LoginQuestion:
        return await authority.decide(question, now.rules, directory.View(stamp), time.time)
    attempt = verifier.Attempt(question.password)
    verdict = await authority.decide(
        question, now.rules, directory.View(stamp, attempt.is_verified_for), time.time, attempt.verify
    )
    # While it waited for a slow hash, the device may have been revoked, or the broker's token may have expired.
    if verdict.allowed and attempt.waited:
        stamp = changes.stamp()
        now = await policy.current(stamp)
        if now.caller_of(request, dialect) is None:
            return deny(Reason.UNKNOWN_CALLER)
        view = directory.View(stamp, attempt.is_verified_for)
        verdict = await authority.decide(question, now.rules, view, time.time, attempt.verify)
    return verdict


async def admit(request: Request, dialect: Dialect) -> Caller | None:
    """Return the broker that presents its token with *request* in *dialect*, which another app answers; else None.

    A use is noted as that of a question, and a refusal is counted as a denial. Raise reader.DatabaseAway, or errors of
    the driver.
    """
    stamp = changes.stamp()
    now = policy.cached(stamp) or await policy.current(stamp)
    verdict = deny(Reason.UNKNOWN_CALLER)
    request.caller = caller = now.caller_of(request, dialect)
    if caller is None:
        _note(dialect, request, verdict)
        return None
    note = _note_of(dialect, request, verdict)
    if note is not None:
        note.count += 1
        note.at = time.perf_counter()
        if not note.is_queued:
            _queue(dialect, note)
    return caller


def find(path: str) -> tuple[Dialect, str, str | None] | None:
    """Return dialect, question and token of `<dialect>/<question>` or `k/<token>/<dialect>/<question>`, or None."""
    if (found := QUESTIONS.get(path)) is not None:
        return found
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != "k":
        return None
    found = QUESTIONS.get(f"{parts[2]}/{parts[3]}")
    return None if found is None else (found[0], found[1], parts[1])


QUESTIONS: dict[str, tuple[Dialect, str, str | None]] = {
    f"{dialect.name}/{question}": (dialect, question, None)
    for dialect in DIALECTS
    for question in dialect.questions
}
