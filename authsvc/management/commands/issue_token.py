"""`manage.py issue_token USERNAME [--ttl 1h]`: a short-lived token in place of a password."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from authsvc import reader, tokens
from authsvc.core.access import AmbiguousIdentity

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Command(BaseCommand):
    help = "Print a token for the JWT mode of mosquitto-go-auth. It ends with any change of the credentials."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument(
            "--ttl", default="1h", help="how long it is valid, such as 15m or 1h; at most 30d"
        )

    def handle(self, *, username: str, ttl: str, **options: Any) -> str:
        match = re.fullmatch(r"(\d{1,8})([smhd])", ttl)
        if match is None:
            raise CommandError(f"{ttl!r} is no duration; write 90s, 15m, 1h or 2d")
        try:
            return asyncio.run(_issue(username, int(match[1]) * UNITS[match[2]]))
        except (tokens.NotIssued, AmbiguousIdentity) as error:
            raise CommandError(str(error)) from error


async def _issue(username: str, seconds: int) -> str:
    try:
        return await tokens.issue(username, seconds)
    finally:
        await reader.close()
