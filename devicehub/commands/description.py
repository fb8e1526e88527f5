"""Descriptions of a command: in words on one line, and as JSON."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.utils import timezone

from authsvc.text import in_utc
from devicehub.models import CommandState, DeviceCommand

TIMES = ("queued_at", "deadline", "due_at", "sent_at", "acknowledged_at", "answered_at", "ended_at")


def as_dict(command: DeviceCommand) -> dict[str, Any]:
    times: dict[str, datetime | None] = {name: getattr(command, name) for name in TIMES}
    return {
        "id": str(command.id),
        "device": command.device_key,
        "command": command.name,
        "payload": command.payload,
        "state": command.state,
        **{name: time and time.isoformat() for name, time in times.items()},
        "attempts": command.attempts,
        "error": command.error,
        "response": command.response,
    }


def in_words(command: DeviceCommand) -> str:
    """Return on one line the id, the target and the state of *command*, and the reason for that state."""
    what = f"{command.id}: {command.name} to {command.device_key} is {command.state}"
    if command.succeeded:
        return f"{what}: {json.dumps(command.result)}"
    if command.state == CommandState.QUEUED:
        return f"{what} until {in_utc(command.deadline)}: {reason(command)}"
    if command.state == CommandState.ANSWERED:
        what += ": it failed on the device"
    if not command.error or command.state == CommandState.CANCELLED:
        return what
    return f"{what}: {printable(command.error)}"


def reason(command: DeviceCommand) -> str:
    """Return why *command* waits, or how it failed; empty if neither is true."""
    if is_being_sent(command):
        return "a process is sending it"
    if command.error:
        return printable(command.error)
    match command.state:
        case CommandState.QUEUED if command.leased_until is None:
            return "not tried yet"
        case CommandState.QUEUED:
            return "the process that was sending it ended"
        case CommandState.SENT | CommandState.ACKNOWLEDGED:
            return "no answer yet"
    return ""


def obstacle(command: DeviceCommand) -> str:
    """Return why *command* cannot be cancelled, in one sentence or two."""
    if is_being_sent(command):
        return "A process is sending the command. Read it again in a moment."
    match command.state:
        case CommandState.QUEUED if command.leased_until is None:
            return "The command changed meanwhile. Try again."
        case CommandState.QUEUED:
            return "The process that was sending the command ended, so it may have arrived."
        case CommandState.SENT | CommandState.ACKNOWLEDGED:
            return "The command was sent, so it may have arrived."
    return f"The command has ended: it is {command.state}."


def is_being_sent(command: DeviceCommand) -> bool:
    """Return whether a process holds a lease on *command*."""
    until = command.leased_until if command.state == CommandState.QUEUED else None
    return until is not None and until > timezone.now()


def printable(text: str) -> str:
    """Return *text* on one line: control characters are escaped as in Python."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
