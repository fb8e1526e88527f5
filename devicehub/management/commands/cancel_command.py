"""`manage.py cancel_command ID...`: cancel queued commands."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from typing import Any
from uuid import UUID

from django.core.management.base import CommandParser

from authsvc.management.command import DatabaseCommand
from devicehub import commands
from devicehub.commands import description
from devicehub.models import CommandState, DeviceCommand


def command_id(text: str) -> UUID:
    """Return *text* as the id of a command. Raise ArgumentTypeError."""
    try:
        return UUID(text)
    except ValueError as error:
        raise ArgumentTypeError(
            f"{text!r} is not the id of a command; list_commands shows the ids"
        ) from error


class Command(DatabaseCommand):
    help = "Cancel queued commands. The exit code is 0 when all of them are cancelled."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "id", nargs="+", type=command_id, help="id of a command, as list_commands shows it"
        )
        parser.add_argument("--json", action="store_true", help="print the commands' new state as JSON")

    def handle(self, **options: Any) -> None:
        missed = False
        described: list[dict[str, Any]] = []
        for one in options["id"]:
            command = _cancelled(one)
            is_cancelled = command is not None and command.state == CommandState.CANCELLED
            missed |= not is_cancelled
            if command is not None:
                described.append(description.as_dict(command))
            if not options["json"] or command is None:
                (self.stdout if is_cancelled else self.stderr).write(_in_words(one, command))
        if options["json"]:
            self.stdout.write(json.dumps(described))
        if missed:
            sys.exit(1)


def _cancelled(one: UUID) -> DeviceCommand | None:
    """Try to cancel a command; return it as it is then, or None if there is no such command."""
    command = DeviceCommand.objects.filter(id=one).first()
    if command is not None:
        commands.cancel(command)
    return DeviceCommand.objects.filter(id=one).first()


def _in_words(one: UUID, command: DeviceCommand | None) -> str:
    if command is None:
        return f"{one}: there is no such command"
    text = description.in_words(command)
    match command.state:
        case CommandState.QUEUED if description.is_being_sent(command):
            return f"{text}; try again in half a minute"
        case CommandState.QUEUED | CommandState.SENT | CommandState.ACKNOWLEDGED:
            return f"{text}: it is too late to cancel it, the device may have it"
    return text if command.state == CommandState.CANCELLED else f"{text}; it had ended before"
