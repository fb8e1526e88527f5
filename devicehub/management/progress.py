"""The line of progress of long commands, on a terminal only."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.template.defaultfilters import pluralize


@contextmanager
def counting(stream: Any, verb: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds a number of rows and shows the sum on *stream*, if that is a terminal."""
    total = 0

    def more(count: int) -> None:
        nonlocal total
        total += count
        if stream.isatty():
            stream.write(f"\r{total:,} row{pluralize(total)} {verb}", ending="")

    yield more
    if stream.isatty() and total:
        stream.write("")


def positive(text: str) -> int:
    """Return *text* as a positive whole number. Raise ArgumentTypeError, whose text argparse shows."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)
