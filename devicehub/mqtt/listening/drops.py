"""The numbers of dropped messages that a broker publishes, on its own topics such as those below $SYS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from devicehub.mqtt.listening.intake import Delivery


class Drops:
    """The last number at each of *topics*. *report* is called with a sentence about a message that is not a number."""

    def __init__(self, topics: Iterable[str], report: Callable[[str], None]) -> None:
        self.topics = list(dict.fromkeys(topics))
        self.counts: dict[str, float] = {}
        self.is_one = frozenset(self.topics).__contains__  # True for a topic of these.
        self._report = report

    def note(self, delivery: Delivery) -> None:
        """Store the number in *delivery*."""
        try:
            number = float(delivery.payload)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            self.counts = {**self.counts, delivery.topic: number}
        else:
            self._report(f"the message on {delivery.topic} is not a number")
