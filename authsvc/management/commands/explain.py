"""`manage.py explain NAME ACTION [TOPIC]`: print a decision with its reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser

from authsvc.brokers.base import NAMES
from authsvc.core.access import Action
from authsvc.management.command import DatabaseCommand
from authsvc.operation.explain import (
    Explanation,
    explain,
    explain_login,
    run,
    username_of,
    wire_answers,
)
from authsvc.operation.wire import CONNECT, WireAnswer


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
        parser.add_argument(
            "--rules", action="store_true", help="print each step and each rule that was tried, too"
        )
        parser.add_argument(
            "--broker", choices=sorted(NAMES), help="print the answer that this broker gets, too"
        )
        parser.add_argument("--json", action="store_true", help="print the decision as JSON")

    def handle(self, *, username: str, action: str, topic: str | None, **options: Any) -> None:
        if (topic is None) != (action == CONNECT):
            raise CommandError(f"{action} takes no topic" if topic is not None else f"{action} needs a topic")
        if options["password_stdin"] and action != CONNECT:
            raise CommandError(f"{action} takes no password: write connect")
        password = sys.stdin.readline().removesuffix("\n") if options["password_stdin"] else None
        brokers = (options["broker"],) if options["broker"] else ()
        found, wire = run(_decide(username, action, topic or "", options["client_id"], password, brokers))
        if options["json"]:
            self.stdout.write(json.dumps(found.as_dict() | {"wire": [vars(answer) for answer in wire]}))
        else:
            self.stdout.write(
                "\n".join([_for_people(found), *_details(found, options["rules"]), *_told(wire)])
            )
        if not found.allowed:
            sys.exit(1)


async def _decide(
    name: str, action: str, topic: str, client_id: str | None, password: str | None, brokers: tuple[str, ...]
) -> tuple[Explanation, list[WireAnswer]]:
    username = await username_of(name)
    if action == CONNECT:
        found = await explain_login(username, client_id, password)
    else:
        found = await explain(username, Action(action), topic, client_id)
    return found, await wire_answers(found, brokers)


def _details(found: Explanation, are_wanted: bool) -> Iterator[str]:
    if not are_wanted:
        return
    for check in found.checks:
        yield f"  step     {_words(check.passage)} {check.name}: {check.sentence}"
    for rule in found.rules:
        what = f"{'allow' if rule.allow else 'deny'} {rule.summary} ({rule.subject})"
        yield f"  rule     {_words(rule.outcome)} {what}: {rule.sentence}"
    if found.rules_left_out:
        yield f"  and {found.rules_left_out:,} more rules"


def _words(outcome: str) -> str:
    return f"{outcome.replace('_', ' '):<12}"


def _told(wire: list[WireAnswer]) -> Iterator[str]:
    for answer in wire:
        said = "does not ask about this" if answer.status is None else f"gets {answer.status} {answer.body}"
        yield f"  wire     {answer.broker} {said}"


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
