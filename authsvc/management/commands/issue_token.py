"""`manage.py issue_token USERNAME [--ttl 1h]`: a short-lived token in place of a password."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from authsvc import audit, chain, tokens
from authsvc.durations import duration
from authsvc.freshness import reader
from authsvc.management.command import ReasonedCommand


class Command(ReasonedCommand):
    help = "Print a token for the JWT mode of mosquitto-go-auth. A change of the credentials revokes it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument(
            "--ttl",
            type=duration,
            default=duration("1h"),
            help="validity, such as 15m; at most 30d (default: 1h)",
        )

    def handle(self, *, username: str, ttl: timedelta, **options: Any) -> str:
        key, token = asyncio.run(_issue(username, int(ttl.total_seconds())))
        audit.record("token_issued", key, after={"ttl": ttl})
        return token


async def _issue(username: str, seconds: int) -> tuple[str, str]:
    """Return the key of *username*, and a token for it."""
    try:
        token = await tokens.issue(username, seconds)
        principal = await chain.configured().lookup(username)
        return principal.key if principal else username, token
    finally:
        await reader.close()
