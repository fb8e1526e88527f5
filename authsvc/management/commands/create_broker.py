"""`manage.py create_broker NAME DIALECT`: a caller with a token, shown once, and its ready configuration."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.http.request import split_domain_port, validate_host

from authsvc.brokers import BROKERS, BY_DIALECT
from authsvc.durations import duration
from authsvc.management.command import DatabaseCommand
from authsvc.models import Broker

NO_URL = re.compile(r"[^\w\-.~:/\[\]%@]")  # also white space and quotes
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=5)  # of --cache


class Command(DatabaseCommand):
    help = "Let a broker ask. Prints its token, this once, and the configuration that belongs to it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what operators call this broker")
        parser.add_argument("dialect", choices=sorted(BY_DIALECT), help="how it asks")
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the broker reaches us")
        parser.add_argument("--network", action="append", default=[], help="accept it from here only")
        parser.add_argument("--cache", type=duration, help="let mosquitto-go-auth keep answers: 1s to 5m")
        parser.add_argument("--rotate", action="store_true", help="give a broker that exists a new token")
        parser.add_argument("--json", action="store_true", help="print name, dialect and token as JSON")

    def handle(
        self,
        *,
        name: str,
        dialect: str,
        url: str,
        network: list[str],
        cache: timedelta | None,
        **options: Any,
    ) -> str:
        host = _host(url)
        if cache is not None:
            _check_cache(cache, dialect, as_json=options["json"])
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
        broker.full_clean()
        broker.save()
        if options["json"]:
            return json.dumps({"name": name, "dialect": dialect, "token": token})
        if not split_domain_port(host)[0]:
            self.stderr.write(
                f"Note: {host} is not a valid host name (letters, digits, - and . only). Behind the Django entrance "
                "each question would be refused, whatever ALLOWED_HOSTS holds: give the service another name, or use "
                "its address"
            )
        elif not validate_host(host, settings.ALLOWED_HOSTS):
            self.stderr.write(
                f"Note: where the site runs behind the Django entrance, ALLOWED_HOSTS needs {host}"
            )
        if cache is not None:
            self.stderr.write(
                f"Note: the cache weakens what the service decides: a revocation is up to {_seconds(cache)} s late, "
                "and more; the comments above the cache's lines say what"
            )
        configuration = BY_DIALECT[dialect].configuration(url, token, cache)
        return f"# The token of {name}, shown this once: {token}\n\n{configuration}"


def _check_cache(cache: timedelta, dialect: str, *, as_json: bool) -> None:
    """Raise CommandError unless the configuration of *dialect* can keep answers for *cache*, and is printed."""
    if not BY_DIALECT[dialect].cache:
        able = ", ".join(broker.dialect for broker in BROKERS if broker.cache)
        raise CommandError(f"--cache is for mosquitto-go-auth ({able}), not for {dialect}")
    if not SHORTEST <= cache <= LONGEST:
        raise CommandError(f"--cache {_seconds(cache)}s is out of bounds; write 1s to 5m, such as 5s")
    if as_json:
        raise CommandError("--cache changes the configuration, which --json does not print")


def _seconds(time: timedelta) -> int:
    return int(time.total_seconds())


def _host(url: str) -> str:
    """Return the host in the service's address *url*, as a Host header has it. Raise CommandError if there is none."""
    try:
        parts = urlsplit(url)
        whole = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        whole = False
    # What no URL holds would break the printed configuration, or make a plugin log the URL with the token.
    if not whole or parts.username is not None or parts.query or parts.fragment or NO_URL.search(url):
        raise CommandError("--url is not the address of this service; write http://host:8000")
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
