"""`manage.py send_command TYPE DEVICE_ID NAME [JSON]`: send a command to a device, and say how far it came."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error, connections, transaction
from django.utils import timezone

from authsvc.durations import duration
from authsvc.management.command import DatabaseCommand
from devicehub import commands, provisioning
from devicehub.commands import description
from devicehub.kinds.registry import registry
from devicehub.models import OPEN_STATES, BaseDevice, CommandState, DeviceCommand

SHOWN = 80  # characters of parameters that cannot be read
LOOK = 0.1  # seconds between two looks at the command while waiting
GRACE = timedelta(seconds=2)  # after the deadline, for a worker to end the command
INTERRUPTED = 130  # the exit code of a program that ctrl-c ended


def json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"{text[:SHOWN]!r} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ArgumentTypeError('parameters are a JSON object, such as {"interval": 60}')
    return found


class Command(DatabaseCommand):
    help = (
        "Send a command to a device. Exit code 0 when the broker has it, with --wait when the device did it."
    )
    sent_id = ""  # of the command, once it is in the queue

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("device_id")
        parser.add_argument("name", help="the command, such as reboot")
        parser.add_argument("payload", nargs="?", type=json_object, help="its parameters, as a JSON object")
        parser.add_argument("--wait", type=duration, help="wait so long for the device's answer")
        parser.add_argument("--deadline", type=duration, help="how long the command may take, such as 1h")
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        wait: timedelta = options["wait"] or timedelta()
        try:
            device = self._send(options)
            command = _look(self.sent_id, wait)
        except KeyboardInterrupt:
            self._interrupted(as_json=options["json"])
        except Error as error:
            why = " ".join(str(error).split())
            raise CommandError(
                f"The database fails: {why}; look with list_commands before you send it again"
            ) from error
        is_enough = command.succeeded or (not wait and _is_taken(command, device))
        self._report(command, _for_people(command, wait), did=is_enough, as_json=options["json"])
        if not is_enough:
            sys.exit(1)

    def _send(self, options: dict[str, Any]) -> BaseDevice:
        device = provisioning.find(provisioning.kind_of(options["type"]), options["device_id"])
        try:
            with transaction.atomic():  # its id is known before the broker is asked, which may take a while
                self.sent_id = commands.send(
                    device, options["name"], options["payload"], deadline=options["deadline"]
                )
        except (ValueError, TypeError) as error:  # of the command's declaration
            raise CommandError(str(error)) from error
        return device

    def _interrupted(self, *, as_json: bool) -> None:
        """Ctrl-c ends the waiting, and not the command."""
        connections.close_all()  # it may be in the middle of a query
        command = DeviceCommand.objects.filter(id=self.sent_id).first() if self.sent_id else None
        if command is None:
            self.stderr.write("Nothing was queued")
        else:
            self._report(command, _for_people(command, timedelta()), did=False, as_json=as_json)
        sys.exit(INTERRUPTED)

    def _report(self, command: DeviceCommand, text: str, *, did: bool, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(description.as_dict(command)))
        else:
            (self.stdout if did else self.stderr).write(text)


def _is_taken(command: DeviceCommand, device: BaseDevice) -> bool:
    """Whether the broker has it, as far as can be known: with QoS 0 it acknowledges nothing."""
    kind = registry.of(device)
    qos = kind.commands[command.name].qos if kind else 1
    went_out = command.state == CommandState.SENT and not command.error
    return command.state == CommandState.ACKNOWLEDGED or (went_out and qos == 0)


def _look(command_id: str, wait: timedelta) -> DeviceCommand:
    """The command, as soon as it is over; as it is after *wait* or its deadline. CommandError when it was deleted."""
    command = _found(command_id)
    most = min(wait, command.deadline + GRACE - timezone.now())
    end = time.monotonic() + most.total_seconds()
    while command.state in OPEN_STATES and time.monotonic() < end:
        time.sleep(LOOK)
        command = _found(command_id)
    return command


def _found(command_id: str) -> DeviceCommand:
    command = DeviceCommand.objects.filter(id=command_id).first()
    if command is None:
        raise CommandError(f"{command_id}: the command was deleted, perhaps with its device")
    return command


def _for_people(command: DeviceCommand, wait: timedelta) -> str:
    text = description.in_words(command)
    if command.state not in OPEN_STATES:
        return text
    if command.deadline <= timezone.now():
        return f"{text}, and its deadline has passed: is listen_mqtt running?"
    if command.state == CommandState.QUEUED:
        return f"{text} (listen_mqtt sends it, cancel_command takes it back)"
    if not wait:
        return text
    return f"{text}, without an answer within {wait.total_seconds():g} s (list_commands shows what waits)"
