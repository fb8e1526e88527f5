"""`manage.py create_broker NAME DIALECT`: register a broker; print its token, once, and its configuration."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings as django_settings
from django.core.management.base import CommandError, CommandParser
from django.http.request import split_domain_port, validate_host
from django.utils import timezone

from authsvc import broker_tokens
from authsvc.brokers import BROKERS, BY_DIALECT, by_dialect
from authsvc.brokers.base import InvalidAddress, host_of
from authsvc.conf import settings
from authsvc.credentials import UNTIL_USED, end_of_old
from authsvc.durations import duration
from authsvc.management.command import ReasonedCommand
from authsvc.models import Broker

CANNOT_CHANGE = "--rotate only changes the token: change dialects and networks in the admin"
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=5)  # Bounds of --cache.


class Command(ReasonedCommand):
    help = "Register a broker. Prints its token, which is shown only once, and its configuration."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="name of the broker, for operators")
        parser.add_argument("dialect", choices=sorted(by_dialect()), help="dialect in which the broker asks")
        parser.add_argument(
            "--url",
            default=settings.url,
            help="address at which the broker reaches this service (default: %(default)s, the setting AUTHSVC_URL)",
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
        until = parser.add_mutually_exclusive_group()
        until.add_argument(
            "--overlap",
            type=duration,
            help="with --rotate: how long the old token stays valid, such as 1h (default: not at all)",
        )
        until.add_argument(
            "--until-used",
            action="store_true",
            help="with --rotate: end the old token when the new one is used",
        )
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
        if (options["overlap"] or options["until_used"]) and not options["rotate"]:
            raise CommandError("--overlap and --until-used need --rotate: a new broker has no old token")
        if options["rotate"]:
            token, ends = _rotate(name, dialect, network, _until(options))
        else:
            token, ends = _create(name, dialect, network), ""
        if options["json"]:
            return json.dumps({"name": name, "dialect": dialect, "token": token})
        self._note(host, cache)
        configuration = by_dialect()[dialect].configuration(url, token, cache)
        return f"# The token of {name}, shown this once: {token}{ends}\n\n{configuration}"

    def _note(self, host: str, cache: timedelta | None) -> None:
        """Print what the operator should know about the address of the service, and about the cache of the broker."""
        if not split_domain_port(host)[0]:
            self.stderr.write(
                f"Note: {host} is not a valid host name (letters, digits, - and . only). At the Django entrance "
                "each question would be refused, whatever ALLOWED_HOSTS holds: give the service another name, or use "
                "its address"
            )
        elif not validate_host(host, django_settings.ALLOWED_HOSTS):
            self.stderr.write(f"Note: if the broker uses the Django entrance, add {host} to ALLOWED_HOSTS")
        if cache is not None:
            self.stderr.write(
                f"Note: the cache delays decisions: a revocation applies up to {_seconds(cache)} s late; the comments "
                "above the lines of the cache list more effects"
            )


def _host(url: str) -> str:
    """Return the host in *url*. Raise CommandError."""
    try:
        return host_of(url)
    except InvalidAddress as error:
        raise CommandError(f"--url {error}") from error


def _create(name: str, dialect: str, networks: list[str]) -> str:
    try:
        return broker_tokens.create_broker(name, [dialect], networks)[1]
    except broker_tokens.BrokerExists as error:
        raise CommandError(f"{error}; --rotate gives it a new token") from error


def _rotate(name: str, dialect: str, networks: list[str], until: datetime | None) -> tuple[str, str]:
    """Return the new token of a broker, and a line about the end of the old one. Raise CommandError."""
    if networks:
        raise CommandError(CANNOT_CHANGE)
    broker = Broker.objects.filter(name=name).first()
    if broker is None:
        raise CommandError(f"There is no broker {name}")
    if dialect not in (broker.dialects or BY_DIALECT):
        raise CommandError(CANNOT_CHANGE)
    was_unused = broker.awaits_first_use()
    token = broker_tokens.rotate_token(broker, valid_until=until)
    return token, f"\n# {end_of_old(until, was_unused=was_unused)}"


def _until(options: dict[str, Any]) -> datetime | None:
    if options["until_used"]:
        return UNTIL_USED
    return timezone.now() + options["overlap"] if options["overlap"] else None


def _check_cache(cache: timedelta, dialect: str, *, as_json: bool) -> None:
    """Raise CommandError unless the configuration is printed and *dialect* can cache answers for *cache*."""
    if not by_dialect()[dialect].cache:
        able = ", ".join(broker.dialect for broker in BROKERS if broker.cache)
        raise CommandError(f"--cache is for mosquitto-go-auth ({able}), not for {dialect}")
    if not SHORTEST <= cache <= LONGEST:
        raise CommandError(f"--cache {_seconds(cache)}s is out of bounds; write 1s to 5m, such as 5s")
    if as_json:
        raise CommandError("--cache changes the configuration, which --json does not print")


def _seconds(time: timedelta) -> int:
    return int(time.total_seconds())
