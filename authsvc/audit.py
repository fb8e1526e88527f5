"""The audit: a record of each change of an identity or a right, written in the transaction of the change.

The actions record themselves, so a change by a page, a program or the shell leaves the same row:

    @transaction.atomic
    def rotate_token(broker: Broker) -> str:
        token = broker.issue_token()
        broker.save()
        audit.record("token_rotated", f"broker/{broker.name}")
        return token

The actor comes from the context: a request sets its user, a worker itself, and in a shell it is the login name.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from authsvc import secret_columns
from authsvc.models import AuditEntry
from authsvc.text import make_storable

MAX_REASON = 300  # characters


@dataclass(frozen=True)
class Actor:
    """The author of a change: a user, an API key, a login of the shell, or a part of the system."""

    kind: str
    name: str
    address: str = ""


_actor: ContextVar[Callable[[], Actor] | None] = ContextVar("audit_actor", default=None)
_reason: ContextVar[str] = ContextVar("audit_reason", default="")


@contextmanager
def acting(actor: Actor | Callable[[], Actor]) -> Iterator[None]:
    """Record the changes in this block as those of *actor*. A function is called when there is a change to record."""
    found = actor if callable(actor) else lambda: actor
    token = _actor.set(found)
    try:
        yield
    finally:
        _actor.reset(token)


@contextmanager
def because(reason: str) -> Iterator[None]:
    """Record the changes in this block with the *reason* that an operator typed."""
    token = _reason.set(make_storable(reason.strip(), MAX_REASON))
    try:
        yield
    finally:
        _reason.reset(token)


def system(name: str) -> Actor:
    """Return the actor of changes that no person requested, such as `listen_mqtt`."""
    return Actor(AuditEntry.Kind.SYSTEM, name)


def current_actor() -> Actor:
    """Return the actor of this context; the login of the shell if nothing else is set."""
    found = _actor.get()
    return found() if found is not None else Actor(AuditEntry.Kind.SHELL, _login())


def _login() -> str:
    """Return the login name of this process, behind sudo that of its caller."""
    if name := os.environ.get("SUDO_USER"):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run as a number without a name.
        return f"uid {os.getuid()}"


def record(
    action: str,
    key: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    using: str = "default",
) -> AuditEntry:
    """Write one row about *action* on the object *key*, and return it. The caller's transaction holds the change too.

    *key* is that of a device or an account, or `broker/<name>`, `grant/<id>`, `user/<name>`, `group/<slug>`. *before*
    and *after* are the changed values by column, JSON each. Raise ValueError for a secret column.
    """
    for name in (*(before or ()), *(after or ())):
        if secret_columns.is_secret(name):
            raise ValueError(f"{name} is a secret column, which the audit must not hold")
    actor = current_actor()
    return AuditEntry.objects.using(using).create(
        at=timezone.now(),
        actor_kind=actor.kind,
        actor=make_storable(actor.name, 150),
        address=make_storable(actor.address, 45),
        action=action,
        object_key=key[:260],
        before=before,
        after=after,
        reason=_reason.get(),
    )


def record_many(
    action: str,
    changes: Iterable[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]],
    *,
    using: str = "default",
) -> None:
    """Write one row about *action* for each of *changes*: key, before and after, as in record(). It is one statement.

    The caller bounds their number. Raise ValueError for a secret column.
    """
    actor, at = current_actor(), timezone.now()
    entries = []
    for key, before, after in changes:
        for name in (*(before or ()), *(after or ())):
            if secret_columns.is_secret(name):
                raise ValueError(f"{name} is a secret column, which the audit must not hold")
        entries.append(
            AuditEntry(
                at=at,
                actor_kind=actor.kind,
                actor=make_storable(actor.name, 150),
                address=make_storable(actor.address, 45),
                action=action,
                object_key=key[:260],
                before=before,
                after=after,
                reason=_reason.get(),
            )
        )
    AuditEntry.objects.using(using).bulk_create(entries)
