"""`manage.py create_account NAME`: create a service account and show its password once."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from authsvc.credentials import end_of_old
from authsvc.durations import duration
from authsvc.management.command import ReasonedCommand
from authsvc.models import Account
from devicehub import provisioning
from devicehub.management.prompts import read_password


class Command(ReasonedCommand):
    help = "Create a service account and print its password, which is shown only once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="MQTT username of the account")
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument("--superuser", action="store_true", help="exempt the account from all topic rules")
        kind.add_argument(
            "--ingest",
            action="store_true",
            help="let the account receive all data, status and reply topics, publish all cmd topics, and nothing else",
        )
        parser.add_argument(
            "--clear-retained",
            action="store_true",
            help="with --ingest: let the account also clear retained messages of deleted and disabled devices",
        )
        parser.add_argument("--rotate", action="store_true", help="give an existing account a new password")
        parser.add_argument(
            "--overlap",
            type=duration,
            help="with --rotate: how long the old password stays valid, such as 24h (default: not at all)",
        )
        parser.add_argument(
            "--ask", action="store_true", help="with --rotate: prompt for a password of your choice"
        )
        parser.add_argument(
            "--grant-only",
            action="store_true",
            help="with --ingest: add the grants for new device types to an existing account",
        )
        parser.add_argument(
            "--client-id",
            action="append",
            default=[],
            help="client id that the account may connect with; may end in *, and be given several times",
        )
        parser.add_argument("--json", action="store_true", help="print username and password as JSON")

    def handle(self, *, name: str, client_id: list[str], **options: Any) -> str:
        if (options["ask"] or options["overlap"]) and not options["rotate"]:
            raise CommandError("--ask and --overlap need --rotate: create the account first")
        if options["ask"] and options["overlap"]:
            raise CommandError("--ask ends the old password now: leave --overlap out")
        if options["clear_retained"] and not options["ingest"]:
            raise CommandError(
                "--clear-retained needs --ingest: only an ingest account clears retained messages"
            )
        if options["rotate"] and (options["superuser"] or options["ingest"] or client_id):
            raise CommandError("--rotate changes only the password: change the rest in the admin")
        if options["rotate"]:
            return _rotate(name, options)
        if options["grant_only"]:
            return _grant(name, ingest=options["ingest"], clear_retained=options["clear_retained"])
        if Account.objects.filter(username=name).exists():
            raise CommandError(f"There is an account {name} already; --rotate gives it a new password")
        _, password = provisioning.create_account(
            name,
            superuser=options["superuser"],
            ingest=options["ingest"],
            clear_retained=options["clear_retained"],
            client_ids=client_id,
        )
        if options["json"]:
            return json.dumps({"username": name, "password": password})
        return f"The account {name} has the password {password}\nIt is shown only once."


def _grant(name: str, *, ingest: bool, clear_retained: bool) -> str:
    account = Account.objects.filter(username=name).first()
    if account is None or not ingest:
        raise CommandError(
            f"--grant-only needs --ingest, and an existing account: is there an account {name}?"
        )
    added = provisioning.grant_ingest(account, clear_retained=clear_retained)
    return f"{added} grants added to the account {name}"


def _rotate(name: str, options: dict[str, Any]) -> str:
    account = Account.objects.filter(username=name).first()
    if account is None:
        raise CommandError(f"There is no account {name}")
    if options["ask"]:
        provisioning.choose_account_password(account, read_password())
        return f"The account {name} has the password you chose; the old one has ended."
    until = timezone.now() + options["overlap"] if options["overlap"] else None
    was_unused = account.awaits_first_use()
    password = provisioning.rotate_account(account, valid_until=until)
    if options["json"]:
        return json.dumps({"username": name, "password": password})
    ends = end_of_old(account.previous_valid_until, was_unused=was_unused)
    return f"The account {name} has the new password {password}\nIt is shown only once. {ends}"
