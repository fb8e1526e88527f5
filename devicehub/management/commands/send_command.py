"""`manage.py send_command TYPE DEVICE_ID NAME [JSON]`: send a command to a device, and say how far it came."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from authsvc.durations import duration
from devicehub import commands, provisioning
from devicehub.models import OPEN_STATES, CommandState, DeviceCommand

SHOWN = 80  # characters of parameters that cannot be read
LOOK = 0.1  # seconds between two looks at the command while waiting
TAKEN = (CommandState.SENT, CommandState.ACKNOWLEDGED, CommandState.ANSWERED)


def json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"{text[:SHOWN]!r} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ArgumentTypeError('parameters are a JSON object, such as {"interval": 60}')
    return found


class Command(BaseCommand):
    help = (
        "Send a command to a device. Exit code 0 when the broker has it, with --wait when the device did it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("device_id")
        parser.add_argument("name", help="the command, such as reboot")
        parser.add_argument("payload", nargs="?", type=json_object, help="its parameters, as a JSON object")
        parser.add_argument("--wait", type=duration, help="wait so long for the device's answer")
        parser.add_argument("--deadline", type=duration, help="how long the command may take, such as 1h")
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        try:
            kind = provisioning.kind_of(options["type"])
            device = provisioning.find(kind, options["device_id"])
            command_id = commands.send(
                device, options["name"], options["payload"], deadline=options["deadline"]
            )
        except (
            provisioning.UnknownKind,
            provisioning.UnknownDevice,
            commands.CommandNotSent,
            ValueError,
            TypeError,
        ) as error:
            raise CommandError(str(error)) from error
        wait: timedelta | None = options["wait"]
        command = _look(command_id, wait or timedelta())
        if wait or command.state == CommandState.ANSWERED:
            did = command.succeeded
        else:
            did = _is_taken(command, kind.device_type._commands[command.name].qos)
        if options["json"]:
            self.stdout.write(json.dumps(_as_dict(command)))
        else:
            (self.stdout if did else self.stderr).write(_for_people(command, wait))
        if not did:
            sys.exit(1)


def _is_taken(command: DeviceCommand, qos: int) -> bool:
    """Whether the broker has it, as far as can be known: with QoS 0 it acknowledges nothing."""
    return command.state == CommandState.ACKNOWLEDGED or (command.state == CommandState.SENT and qos == 0)


def _look(command_id: str, wait: timedelta) -> DeviceCommand:
    """The command, as soon as it is over; as it is when *wait* is. CommandError when it was deleted."""
    end = time.monotonic() + wait.total_seconds()
    while True:
        command = DeviceCommand.objects.filter(id=command_id).first()
        if command is None:
            raise CommandError(f"{command_id}: the command was deleted, perhaps with its device")
        if command.state not in OPEN_STATES or time.monotonic() >= end:
            return command
        time.sleep(LOOK)


def _as_dict(command: DeviceCommand) -> dict[str, Any]:
    return {
        "id": str(command.id),
        "device": command.device_key,
        "command": command.name,
        "state": command.state,
        "deadline": command.deadline.isoformat(),
        "attempts": command.attempts,
        "error": command.error,
        "response": command.response,
    }


def _for_people(command: DeviceCommand, wait: timedelta | None) -> str:
    what = f"{command.id}: {command.name} to {command.device_key}"
    why = f": {command.error}" if command.error else ""
    if command.state == CommandState.ANSWERED:
        if command.succeeded:
            return f"{what} is answered: {json.dumps(command.result)}"
        return f"{what} is answered: the device could not{why}"
    if command.state not in OPEN_STATES:
        return f"{what} is {command.state}{why}"
    if command.state in TAKEN and wait:
        return f"{what} is {command.state}, without an answer within {wait.total_seconds():g} s{why}"
    if command.state in TAKEN:
        return f"{what} is {command.state}{why}"
    return f"{what} is queued until {command.deadline:%Y-%m-%d %H:%M:%S} UTC{why}"
