"""`manage.py send_command TYPE DEVICE_ID NAME [JSON]`: send a command to a device, and print its state."""

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

SHOWN = 80  # characters; an error quotes at most this many of the parameters
LOOK = 0.1  # seconds between two queries of the command while waiting
GRACE = timedelta(seconds=2)  # A worker has this long after the deadline to expire the command.
INTERRUPTED = 130  # The exit code of a program that ctrl-c ended.


def json_object(text: str) -> dict[str, Any]:
    """Return *text* as a JSON object. Raise ArgumentTypeError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"{text[:SHOWN]!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ArgumentTypeError('parameters must be a JSON object, such as {"interval": 60}')
    return found


class Command(DatabaseCommand):
    help = (
        "Send a command to a device. The exit code is 0 when the broker accepted it, "
        "with --wait when the device reports success."
    )
    sent_id = ""  # The id of the command, once it is in the queue.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("device_id", help="id of the device")
        parser.add_argument("name", help="the command, such as reboot")
        parser.add_argument("payload", nargs="?", type=json_object, help="its parameters, as a JSON object")
        parser.add_argument(
            "--wait",
            type=duration,
            help="wait this long for the device's answer, such as 10s (default: do not wait)",
        )
        parser.add_argument(
            "--deadline",
            type=duration,
            help="how long the command may take, such as 1h (default: DEVICEHUB_COMMAND_DEADLINE)",
        )
        parser.add_argument("--json", action="store_true", help="print the command as JSON")

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
                f"The database fails: {why}; check list_commands before you send the command again"
            ) from error
        is_enough = command.succeeded or (not wait and _is_taken(command, device))
        self._report(command, _for_people(command, wait), did=is_enough, as_json=options["json"])
        if not is_enough:
            sys.exit(1)

    def _send(self, options: dict[str, Any]) -> BaseDevice:
        device = provisioning.find(provisioning.kind_of(options["type"]), options["device_id"])
        try:
            # The id is set before the commit, after which the command is published, which may take a while.
            with transaction.atomic():
                self.sent_id = commands.send(
                    device, options["name"], options["payload"], deadline=options["deadline"]
                )
        except (ValueError, TypeError) as error:  # The parameters do not fit the declaration.
            raise CommandError(str(error)) from error
        return device

    def _interrupted(self, *, as_json: bool) -> None:
        """Report the state of the command after ctrl-c, which ends the waiting but not the command."""
        connections.close_all()  # The interrupt may have come in the middle of a query.
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
    """Return whether the broker acknowledged *command*, or it was sent with QoS 0, which has no ack."""
    kind = registry.of(device)
    qos = kind.commands[command.name].qos if kind else 1
    went_out = command.state == CommandState.SENT and not command.error
    return command.state == CommandState.ACKNOWLEDGED or (went_out and qos == 0)


def _look(command_id: str, wait: timedelta) -> DeviceCommand:
    """Return the command once it has ended, at the latest after *wait* or its deadline.

    Raise CommandError if it was deleted.
    """
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
        return f"{text} (listen_mqtt sends it, cancel_command cancels it)"
    if not wait:
        return text
    return f"{text}, without an answer within {wait.total_seconds():g} s (list_commands shows its state)"
