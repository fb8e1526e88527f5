"""Rates as people write them in a setting."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from django.template.defaultfilters import pluralize

SECONDS = {"s": 1, "m": 60, "h": 3600}


class RateLimit(NamedTuple):
    """*messages* of one device in *seconds*."""

    messages: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.messages} message{pluralize(self.messages)} in {self.seconds} s"


@lru_cache(maxsize=8)
def rate_limit(text: str) -> RateLimit | None:
    """The limit of a text such as `600/m` (s, m or h); None for an empty one. Raises ValueError."""
    if not text:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,8})/([smh])", text)
    if match is None:
        raise ValueError(
            f"{text!r} is no rate; write messages for each second, minute or hour, such as 600/m"
        )
    return RateLimit(int(match[1]), SECONDS[match[2]])
