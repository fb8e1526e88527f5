"""`manage.py create_broker NAME DIALECT`: register a broker; print its token, once, and its configuration."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.http.request import split_domain_port, validate_host

from authsvc import audit
from authsvc.brokers import BROKERS, BY_DIALECT
from authsvc.durations import duration
from authsvc.management.command import ReasonedCommand
from authsvc.models import Broker

NO_URL = re.compile(r"[^\w\-.~:/\[\]%@]")  # Also white space and quotes.
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=5)  # Bounds of --cache.


class Command(ReasonedCommand):
    help = "Register a broker. Prints its token, which is shown only once, and its configuration."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="name of the broker, for operators")
        parser.add_argument("dialect", choices=sorted(BY_DIALECT), help="dialect in which the broker asks")
        parser.add_argument(
            "--url",
            default="http://127.0.0.1:8000",
            help="address at which the broker reaches this service (default: %(default)s)",
        )
        parser.add_argument(
            "--network",
            action="append",
            default=[],
            help="network from which the broker may ask; repeatable (default: any)",
        )
        parser.add_argument(
            "--cache",
            type=duration,
            help="time that mosquitto-go-auth may cache answers: 1s to 5m (default: none)",
        )
        parser.add_argument("--rotate", action="store_true", help="give an existing broker a new token")
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
            raise CommandError("--rotate only changes the token: change dialects and networks in the admin")
        if broker is None:
            broker = Broker(name=name, dialects=[dialect], networks=network)
        elif not options["rotate"]:
            raise CommandError(f"There is already a broker {name}; --rotate gives it a new token")
        action = "broker_created" if broker.pk is None else "token_rotated"
        token = broker.issue_token()
        broker.full_clean()
        with transaction.atomic():
            broker.save()
            audit.record(action, broker.key, after=audit.values(broker, ("dialects", "networks")))
        if options["json"]:
            return json.dumps({"name": name, "dialect": dialect, "token": token})
        if not split_domain_port(host)[0]:
            self.stderr.write(
                f"Note: {host} is not a valid host name (letters, digits, - and . only). At the Django entrance "
                "each question would be refused, whatever ALLOWED_HOSTS holds: give the service another name, or use "
                "its address"
            )
        elif not validate_host(host, settings.ALLOWED_HOSTS):
            self.stderr.write(f"Note: if the broker uses the Django entrance, add {host} to ALLOWED_HOSTS")
        if cache is not None:
            self.stderr.write(
                f"Note: the cache delays decisions: a revocation applies up to {_seconds(cache)} s late; the comments "
                "above the lines of the cache list more effects"
            )
        configuration = BY_DIALECT[dialect].configuration(url, token, cache)
        return f"# The token of {name}, shown this once: {token}\n\n{configuration}"


def _check_cache(cache: timedelta, dialect: str, *, as_json: bool) -> None:
    """Raise CommandError unless the configuration is printed and *dialect* can cache answers for *cache*."""
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
    # Other characters could break the printed configuration, or make a plugin log the URL with the token.
    if not whole or parts.username is not None or parts.query or parts.fragment or NO_URL.search(url):
        raise CommandError("--url is not the address of this service; write http://host:8000")
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
