"""LwM2M paths: object, object instance, resource and resource instance, each with an id of 16 bits. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

Path = tuple[int, ...]

MAX_ID = 65534  # 65535 is reserved.
MOST_IDS = 4
RESOURCE = 3  # The number of ids of a resource; a resource instance has one more.
FORM = re.compile(r"/|(?:/(?:0|[1-9][0-9]{0,4})){1,4}")


@lru_cache(maxsize=4096)
def parse(text: str) -> Path:
    """Return the ids of a path. Raise ValueError.

    >>> parse("/3303/0/5700")
    (3303, 0, 5700)
    >>> parse("/")
    ()
    """
    if not FORM.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a path such as /3303/0/5700")
    ids = tuple(map(int, text[1:].split("/"))) if text != "/" else ()
    if ids and max(ids) > MAX_ID:
        raise ValueError(f"{text} has an id above {MAX_ID}")
    return ids


def write(path: Path) -> str:
    """Return *path* as text.

    >>> write((3, 0, 7, 1))
    '/3/0/7/1'
    """
    return "/" + "/".join(map(str, path))


@lru_cache(maxsize=65_536)
def name(path: Path) -> str:
    """Return *path* as tables have it.

    >>> name((3303, 0, 5700))
    '3303/0/5700'
    """
    return "/".join(map(str, path))


def holds_value(path: Path) -> bool:
    """Return whether *path* is one of a resource or of a resource instance."""
    return RESOURCE <= len(path) <= MOST_IDS


def lies_in(path: Path, base: Path) -> bool:
    """Return whether *path* is *base* or a part of it.

    >>> lies_in((3, 0, 7, 1), (3, 0)), lies_in((3, 0), (3, 0, 7))
    (True, False)
    """
    return path[: len(base)] == base
