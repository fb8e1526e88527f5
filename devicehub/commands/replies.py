"""Replies of devices and the commands that they answer. Ingest calls it in the transaction that stores the replies."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Case, F, Q, Value, When

from devicehub.models import OPEN_STATES, CommandState, DeviceCommand

LONGEST_ERROR = 500


class CommandReply(NamedTuple):
    """The message of a device on its reply topic: an object with `id` and `ok`. The key is that of the topic."""

    device_key: str
    document: dict[str, Any]
    received_at: datetime


def record(replies: Sequence[CommandReply]) -> list[str]:
    """Record the replies; return for each the name of the command that it answers, or "" if it answers none.

    The first reply counts. A reply after the deadline or after the end of the command is stored with the command,
    but does not answer it: an open command expires, any other keeps its state.
    """
    names = [""] * len(replies)
    ids = [command_id(reply.document.get("id")) for reply in replies]
    found = {
        (command.id, command.device_key): command
        for command in DeviceCommand.objects.filter(id__in={i for i in ids if i is not None})
    }
    # All workers lock rows in the same order, so that no two wait for each other.
    for place in sorted(range(len(replies)), key=lambda place: (str(ids[place]), place)):
        reply, answered = replies[place], ids[place]
        command = found.get((answered, reply.device_key)) if answered else None
        if command is None:
            continue
        if reply.received_at <= command.deadline and _answer(command, reply):
            names[place] = command.name
        else:
            _keep_late(command, reply)
    return names


def _answer(command: DeviceCommand, reply: CommandReply) -> bool:
    unanswered = DeviceCommand.objects.filter(id=command.id, answered_at=None, state__in=OPEN_STATES)
    return bool(
        unanswered.update(
            state=CommandState.ANSWERED,
            answered_at=reply.received_at,
            response=reply.document,
            error=_error(reply.document),
            due_at=None,
        )
    )


def _keep_late(command: DeviceCommand, reply: CommandReply) -> None:
    is_open = Q(state__in=OPEN_STATES)
    DeviceCommand.objects.filter(id=command.id, answered_at=None).update(
        answered_at=reply.received_at,
        response=reply.document,
        state=Case(When(is_open, then=Value(CommandState.EXPIRED.value)), default=F("state")),
        ended_at=Case(When(is_open, then=F("deadline")), default=F("ended_at")),
        error=Case(When(is_open, then=Value("the answer came after the deadline")), default=F("error")),
        due_at=None,
    )


def command_id(value: Any) -> uuid.UUID | None:
    """Return *value* as the id of a command, or None if it is not the text of a UUID."""
    try:
        return uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _error(document: dict[str, Any]) -> str:
    """Return the error that a device reports, as text; empty if it reports success."""
    if document.get("ok"):
        return ""
    error = document.get("error", "")
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return text[:LONGEST_ERROR]
