"""Portions of long lists: a statement has a bounded number of parameters, a transaction a bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Thing = TypeVar("Thing")


def batched(things: Iterable[Thing], most: int) -> Iterator[list[Thing]]:
    """Yield *things* in lists of at most *most*. (itertools.batched() of Python 3.12 yields tuples.)

    >>> list(batched("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    source = iter(things)
    while some := list(islice(source, most)):
        yield some
