"""`manage.py list_commands [TYPE [DEVICE_ID]]`: list the commands that wait, and why."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import Q, QuerySet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from authsvc.management.command import DatabaseCommand
from devicehub import provisioning
from devicehub.commands import description
from devicehub.models import CommandState, DeviceCommand

SHOWN = 100  # At most this many commands are shown without --json.


class Command(DatabaseCommand):
    help = "Show the commands that wait to be sent or answered, the newest first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", nargs="?", default="", help="only commands to this device type")
        parser.add_argument("device_id", nargs="?", default="", help="only commands to this device")
        parser.add_argument(
            "--state",
            choices=CommandState.values,
            action="append",
            help="show the commands in this state instead; may be given several times",
        )
        parser.add_argument("--json", action="store_true", help="print all of them as JSON")

    def handle(self, **options: Any) -> str:
        # A command has a due_at until it ends.
        states = Q(state__in=options["state"]) if options["state"] else Q(due_at__isnull=False)
        found = _chosen(options["type"], options["device_id"]).filter(states)
        if options["json"]:
            return json.dumps([description.as_dict(command) for command in found.iterator()])
        shown, count = list(found[:SHOWN]), found.count()
        if not shown:
            return "There is no such command" if options["state"] else "No command waits"
        text = _table(shown) if sys.stdout.isatty() else "\n".join(map(description.in_words, shown))
        return f"{text}\n({count - SHOWN} more; --json shows all)" if count > SHOWN else text


def _chosen(slug: str, device_id: str) -> QuerySet[DeviceCommand]:
    """Return the commands to one type or device. Raise UnknownDevice if there never was such a device."""
    every = DeviceCommand.objects.all()
    if not slug:
        return every
    kind = provisioning.kind_of(slug)
    if not device_id:
        return every.filter(device_key__startswith=kind.key(""))
    of_device = every.filter(device_key=kind.key(device_id))
    if not of_device.exists():
        provisioning.find(kind, device_id)
    return of_device


def _table(commands: list[DeviceCommand]) -> str:
    table = Table("command", "state", "until (UTC)", show_lines=True)
    for command in commands:
        what = f"{command.id}\n{command.name} to {command.device_key}\n{description.reason(command)}"
        cells = (what, command.state, f"{command.deadline:%Y-%m-%d %H:%M:%S}")
        table.add_row(*map(Text, cells))  # rich would read brackets in a str as markup.
    console = Console(file=sys.stdout)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")
