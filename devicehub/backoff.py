"""The pauses between attempts at something that fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Backoff:
    """The pauses after one failure, after two in a row, and so on; the last of *steps* is used from there on.

    *spread* is the part of a pause that chance may take off, so that clients do not come back together: 0.5 leaves
    between half and all of it. A pause has the unit of *steps*; no clock is read here.
    """

    steps: tuple[float, ...]
    spread: float = 0.0

    @classmethod
    def doubling(cls, first: float, most: float, *, spread: float = 0.0) -> Self:
        """Return a back-off whose pauses begin with *first* and double up to *most*.

        >>> Backoff.doubling(1, 30).steps
        (1, 2, 4, 8, 16, 30)
        """
        steps = [first]
        while steps[-1] < most:
            steps.append(min(steps[-1] * 2, most))
        return cls(tuple(steps), spread)

    def after(self, failures: int, chance: Callable[[float, float], float] = random.uniform) -> float:
        """Return the pause after *failures* (1 or more) in a row; *chance* draws between two bounds.

        >>> Backoff((1, 2, 5)).after(2)
        2
        """
        longest = self.steps[min(failures, len(self.steps)) - 1]
        return chance(longest * (1 - self.spread), longest) if self.spread else longest
