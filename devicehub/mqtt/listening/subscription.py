"""The filters of a listener in its session at the broker: new ones are added first, former ones removed after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

HUNG_UP = 2  # A broker that closes so many connections in a row instead of an answer refuses the request.
UNSUBSCRIBED_AT_ONCE = 50  # Filters in one packet.


class Subscription:
    """The filters that *client* requests from the broker, and the broker's answers.

    *drop_topics* are subscribed to in addition to the *filters*, once those are granted; *report* is called with a
    sentence if the broker refuses them, or refuses to remove a former filter.
    """

    def __init__(
        self,
        client: paho.Client,
        filters: Sequence[str],
        drop_topics: Sequence[str],
        report: Callable[[str], None],
    ) -> None:
        self.filters = list(filters)
        self.former: list[str] = []  # Filters that the session may hold and shall not.
        self._client, self._drop_topics, self._report = client, drop_topics, report
        self._requests: dict[int, str] = {}  # Requests without an answer yet, by packet id.
        self._hang_ups = 0  # Hang-ups in a row, after the login and before the answer to a request.

    def begin(self) -> None:
        """Subscribe to the filters over a new connection, if there are any."""
        self._requests.clear()
        if self.filters:
            self._subscribe("filters", [(text, 1) for text in self.filters])

    def go_on(self, *, is_resumed: bool) -> None:
        """Subscribe to the topics of drops and remove the former filters; a session that is not resumed has none."""
        if self._drop_topics:
            self._subscribe("drops", [(topic, 0) for topic in self._drop_topics])
        if not is_resumed:
            self.former = []
        self._unsubscribe()

    def granted(self, packet_id: int, reasons: Sequence[ReasonCode]) -> str | None:
        """Return the filters that the broker refused, as a text; it is empty if the broker granted all.

        Return None for an answer to the request for the topics of drops.
        """
        what = self._requests.pop(packet_id, "")
        requested = self._drop_topics if what == "drops" else self.filters
        refused = ", ".join(text for text, r in zip(requested, reasons, strict=False) if r.is_failure)
        if what != "drops":
            return refused
        if refused:
            self._report(f"the broker refused the subscription to {refused} (DEVICEHUB_MQTT_DROPS)")
        return None

    def removed(self, packet_id: int, reasons: Sequence[ReasonCode]) -> bool:
        """Request the removal of the next former filters; return False for an answer to another request."""
        if self._requests.pop(packet_id, "") != "former":
            return False
        self._hang_ups = 0
        requested, self.former = self.former[:UNSUBSCRIBED_AT_ONCE], self.former[UNSUBSCRIBED_AT_ONCE:]
        refused = [text for text, r in zip(requested, reasons, strict=False) if r.is_failure]
        if refused:
            self._report(
                f"the broker refused to end the subscription to {', '.join(refused)}, which earlier settings made: "
                "messages for it are acknowledged, and may be stored twice; see --begin-anew"
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
        """Stop the removal of the former filters if the connection to *where* was closed instead of an answer to it."""
        if "former" in self._requests.values() and self.hung_up():
            self._report(f"{where} hung up on the end of the subscription to {', '.join(self.former)}")
            self.former = []

    def _subscribe(self, what: str, wanted: list[tuple[str, int]]) -> None:
        _, packet_id = self._client.subscribe(wanted)
        if packet_id is not None:
            self._requests[packet_id] = what

    def _unsubscribe(self) -> None:
        """Request the removal of the next former filters, after the new ones are granted, so no message is missed."""
        if self.former:
            _, packet_id = self._client.unsubscribe(self.former[:UNSUBSCRIBED_AT_ONCE])
            if packet_id is not None:
                self._requests[packet_id] = "former"
