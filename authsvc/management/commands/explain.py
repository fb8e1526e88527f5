"""`manage.py explain USERNAME ACTION TOPIC`: why is this allowed or denied?"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from django.core.management.base import CommandParser

from authsvc import reader
from authsvc.core.access import Action
from authsvc.explain import Explanation, explain
from authsvc.management.command import DatabaseCommand


class Command(DatabaseCommand):
    help = "Decide as for a broker, and say why. Exit code 0 for an allow, 1 for a deny."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("action", choices=[action.value for action in Action])
        parser.add_argument("topic", help="a topic, or a topic filter when subscribing")
        parser.add_argument("--client-id", help="also judge whether it may connect as this")
        parser.add_argument("--json", action="store_true")

    def handle(self, *, username: str, action: str, topic: str, **options: Any) -> None:
        found = asyncio.run(_ask(username, Action(action), topic, options["client_id"]))
        self.stdout.write(json.dumps(found.as_dict()) if options["json"] else _for_people(found))
        if not found.allowed:
            sys.exit(1)


async def _ask(username: str, action: Action, topic: str, client_id: str | None) -> Explanation:
    try:
        return await explain(username, action, topic, client_id)
    finally:
        await reader.close()


def _for_people(found: Explanation) -> str:
    lines = [
        f"{'ALLOW' if found.allowed else 'DENY'}  {found.action} {found.topic}",
        f"  who      {found.principal or 'nobody known as ' + found.username}",
        f"  reason   {found.reason}: {found.sentence}",
    ]
    if found.rule:
        lines.append(f"  rule     {found.rule}")
    if found.nearest:
        lines.append(f"  nearest  {found.nearest}")
    if found.reason == "client_id":
        lines.append(f"  may connect as  {', '.join(found.client_ids or ())}")
    return "\n".join(lines)
