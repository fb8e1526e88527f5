"""Replies of devices and the commands they answer. Called in the transaction that stores the replies."""

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
    """What a device said on its reply topic: an object with `id` and `ok`. The key is of the topic's device."""

    device_key: str
    document: dict[str, Any]
    received_at: datetime


def record(replies: Sequence[CommandReply]) -> list[str]:
    """Of each reply the name of the command that it answers, empty for nobody's; that command is answered now.

    The first reply counts. One that comes after the deadline or after the command's end is kept with it, and the
    command stays what it is, or expires: who waited for it has gone.
    """
    names = [""] * len(replies)
    ids = [command_id(reply.document.get("id")) for reply in replies]
    known = {
        (command.id, command.device_key): command
        for command in DeviceCommand.objects.filter(id__in={i for i in ids if i is not None})
    }
    # In one order everywhere, so that two workers never wait for each other's rows.
    for place in sorted(range(len(replies)), key=lambda place: (str(ids[place]), place)):
        reply, answered = replies[place], ids[place]
        command = known.get((answered, reply.device_key)) if answered else None
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
    """*value* as the id of a command; None when it is the text of no UUID."""
    try:
        return uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _error(document: dict[str, Any]) -> str:
    """What a device says of its failure, as text."""
    if document.get("ok"):
        return ""
    error = document.get("error", "")
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return text[:LONGEST_ERROR]
