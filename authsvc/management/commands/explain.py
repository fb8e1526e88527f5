"""`manage.py explain NAME ACTION [TOPIC]`: print a decision with its reason."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from authsvc.core.access import Action
from authsvc.freshness import reader
from authsvc.management.command import DatabaseCommand
from authsvc.operation.explain import (
    CONNECT,
    Explanation,
    explain,
    explain_login,
    username_of,
)


class Command(DatabaseCommand):
    help = "Decide as for a broker, and print the reason. Exit code 0 for an allow, 1 for a deny."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "username", help="a username, a device id, or a key such as weatherstation/STATION-001"
        )
        parser.add_argument("action", choices=[CONNECT, *(action.value for action in Action)])
        parser.add_argument(
            "topic", nargs="?", help="a topic, or a topic filter to subscribe to; none for connect"
        )
        parser.add_argument("--client-id", help="also check this client id")
        parser.add_argument(
            "--password-stdin",
            action="store_true",
            help="for connect: also check the password on standard input",
        )
        parser.add_argument("--json", action="store_true", help="print the decision as JSON")

    def handle(self, *, username: str, action: str, topic: str | None, **options: Any) -> None:
        if (topic is None) != (action == CONNECT):
            raise CommandError(f"{action} takes no topic" if topic is not None else f"{action} needs a topic")
        if options["password_stdin"] and action != CONNECT:
            raise CommandError(f"{action} takes no password: write connect")
        password = sys.stdin.readline().removesuffix("\n") if options["password_stdin"] else None
        found = asyncio.run(_decide(username, action, topic or "", options["client_id"], password))
        self.stdout.write(json.dumps(found.as_dict()) if options["json"] else _for_people(found))
        if not found.allowed:
            sys.exit(1)


async def _decide(
    name: str, action: str, topic: str, client_id: str | None, password: str | None
) -> Explanation:
    try:
        username = await username_of(name)
        if action == CONNECT:
            return await explain_login(username, client_id, password)
        return await explain(username, Action(action), topic, client_id)
    finally:
        await reader.close()


def _for_people(found: Explanation) -> str:
    lines = [
        f"{'ALLOW' if found.allowed else 'DENY'}  {found.action} {found.topic}".rstrip(),
        f"  who      {found.principal or 'no identity named ' + found.username}",
        f"  reason   {found.reason}: {found.sentence}",
    ]
    if found.rule:
        lines.append(f"  rule     {found.rule}")
    if found.nearest:
        lines.append(f"  nearest  {found.nearest}")
    if found.reason == "client_id" or (found.action == CONNECT and found.principal):
        names = "any client id" if found.client_ids is None else ", ".join(found.client_ids)
        lines.append(f"  may connect as  {names}")
    return "\n".join(lines)
