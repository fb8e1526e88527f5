"""The authors of changes, and the reasons that they give, by context."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

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
_of_process: list[Actor] = []  # The last one counts, in every thread that set none of its own.


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
def process(actor: Actor) -> Iterator[None]:
    """Record the changes of all threads of this process as those of *actor*, except where acting() names another."""
    _of_process.append(actor)
    try:
        yield
    finally:
        _of_process.remove(actor)


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
    """Return the actor of this context, or that of the process; the login of the shell if neither is set."""
    found = _actor.get()
    if found is not None:
        return found()
    return _of_process[-1] if _of_process else Actor(AuditEntry.Kind.SHELL, _login())


def current_reason() -> str:
    """Return the reason of this context, or an empty text."""
    return _reason.get()


def _login() -> str:
    """Return the login name of this process, behind sudo that of its caller."""
    if name := os.environ.get("SUDO_USER"):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run as a number without a name.
        return f"uid {os.getuid()}"
