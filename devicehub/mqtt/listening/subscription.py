"""The filters of a listener in its session at the broker: new ones are added first, former ones removed after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

HUNG_UP = 2  # times in a row that a broker closed the connection instead of an answer, before it counts as a refusal
UNSUBSCRIBED_AT_ONCE = 50  # filters in one packet


class Subscription:
    """What is requested of the broker by *client*, and what it granted.

    *drop_topics* are subscribed to beside the *filters*, once those are granted; *report* is called with a sentence
    where the broker does not let us have them, or does not let go of a former filter.
    """

    def __init__(
        self,
        client: paho.Client,
        filters: Sequence[str],
        drop_topics: Sequence[str],
        report: Callable[[str], None],
    ) -> None:
        self.filters = list(filters)
        self.former: list[str] = []  # filters that the session may hold and shall not
        self._client, self._drop_topics, self._report = client, drop_topics, report
        self._requests: dict[int, str] = {}  # what is not answered yet, by packet id
        self._hang_ups = 0  # in a row, after the login and before the answer to a request

    def begin(self) -> None:
        """Subscribe to the filters over a new connection, where there are any."""
        self._requests.clear()
        if self.filters:
            self._subscribe("filters", [(text, 1) for text in self.filters])

    def go_on(self, *, is_resumed: bool) -> None:
        """Do what follows when the filters are granted; a session that is not *is_resumed* holds no former ones."""
        if self._drop_topics:
            self._subscribe("drops", [(topic, 0) for topic in self._drop_topics])
        if not is_resumed:
            self.former = []
        self._unsubscribe()

    def granted(self, packet_id: int, reasons: Sequence[ReasonCode]) -> str | None:
        """Return which filters the broker refused, as a text that is empty if it granted all.

        Return None for an answer to the request for the topics of drops.
        """
        what = self._requests.pop(packet_id, "")
        requested = self._drop_topics if what == "drops" else self.filters
        refused = ", ".join(text for text, r in zip(requested, reasons, strict=False) if r.is_failure)
        if what != "drops":
            return refused
        if refused:
            self._report(f"the broker does not let us read {refused} (DEVICEHUB_MQTT_DROPS)")
        return None

    def removed(self, packet_id: int, reasons: Sequence[ReasonCode]) -> bool:
        """Ask for the next former filters to be removed; return False for an answer to another request."""
        if self._requests.pop(packet_id, "") != "former":
            return False
        self._hang_ups = 0
        requested, self.former = self.former[:UNSUBSCRIBED_AT_ONCE], self.former[UNSUBSCRIBED_AT_ONCE:]
        refused = [text for text, r in zip(requested, reasons, strict=False) if r.is_failure]
        if refused:
            self._report(
                f"the broker refused to end the subscription to {', '.join(refused)}, which earlier settings made: "
                "what it sends for that is acknowledged, and may be stored twice; see --begin-anew"
            )
        self._unsubscribe()
        return True

    def hung_up(self) -> bool:
        """Count a connection that was closed before the filters were granted; return whether that is a refusal.

        Some brokers close the connection on a filter that they refuse; others when they lose their service.
        """
        self._hang_ups += 1
        return self._hang_ups >= HUNG_UP

    def give_up_former(self, where: str) -> None:
        """Keep the former filters if the connection to *where* was closed instead of an answer to their removal."""
        if "former" in self._requests.values() and self.hung_up():
            self._report(f"{where} hung up on the end of the subscription to {', '.join(self.former)}")
            self.former = []

    def _subscribe(self, what: str, wanted: list[tuple[str, int]]) -> None:
        _, packet_id = self._client.subscribe(wanted)
        if packet_id is not None:
            self._requests[packet_id] = what

    def _unsubscribe(self) -> None:
        """Ask for the next of the former filters to be removed, after the new ones were granted: none is missed."""
        if self.former:
            _, packet_id = self._client.unsubscribe(self.former[:UNSUBSCRIBED_AT_ONCE])
            if packet_id is not None:
                self._requests[packet_id] = "former"
