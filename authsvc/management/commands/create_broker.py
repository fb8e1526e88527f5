"""`manage.py create_broker NAME DIALECT`: a caller with a token, shown once, and its ready configuration."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from authsvc.broker_configuration import TEMPLATES, configuration
from authsvc.management.command import DatabaseCommand
from authsvc.models import Broker


class Command(DatabaseCommand):
    help = "Let a broker ask. Prints its token, this once, and the configuration that belongs to it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what operators call this broker")
        parser.add_argument("dialect", choices=sorted(TEMPLATES), help="how it asks")
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the broker reaches us")
        parser.add_argument("--network", action="append", default=[], help="accept it from here only")
        parser.add_argument("--rotate", action="store_true", help="give a broker that exists a new token")
        parser.add_argument("--json", action="store_true", help="print name, dialect and token as JSON")

    def handle(self, *, name: str, dialect: str, url: str, network: list[str], **options: Any) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(f"--url {url} is no address; write http://host:8000")
        broker = Broker.objects.filter(name=name).first()
        if options["rotate"] and broker is None:
            raise CommandError(f"There is no broker {name}")
        if options["rotate"] and (network or (broker and dialect not in (broker.dialects or [dialect]))):
            raise CommandError(
                "--rotate changes the token alone: dialects and networks are changed in the admin"
            )
        if broker is None:
            broker = Broker(name=name, dialects=[dialect], networks=network)
        elif not options["rotate"]:
            raise CommandError(f"There is a broker {name} already; --rotate gives it a new token")
        token = broker.issue_token()
        try:
            broker.full_clean()
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        broker.save()
        if options["json"]:
            return json.dumps({"name": name, "dialect": dialect, "token": token})
        host = urlsplit(url).hostname or ""
        if host not in settings.ALLOWED_HOSTS and "*" not in settings.ALLOWED_HOSTS:
            self.stderr.write(
                f"Note: where the site runs behind the Django entrance, ALLOWED_HOSTS needs {host}"
            )
        return f"# The token of {name}, shown this once: {token}\n\n{configuration(dialect, url, token)}"
