"""`/api/devices/{type}/{device_id}/access/`: a decision about a device as a broker would get it, with its reason."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc.models import Grant
from authsvc.operation.explain import Explanation, NotOneIdentity
from authsvc.operation.tried import TriedRule
from authsvc.operation.wire import CONNECT, WireAnswer
from devicehub import visibility
from devicehub.api.base import DeviceView
from devicehub.api.fields import Choice, Selectable, SelectedOne
from devicehub.api.operations import documented
from devicehub.api.problems import Problem, invalid
from devicehub.denials import explained

LONGEST_BODY = 2_000  # characters of an answer over the wire


class AccessQuery(SelectedOne):
    """The question."""

    action = Choice(
        choices=explained.ACTIONS, help_text="`connect` is a login with the right password; it has no topic."
    )
    topic = serializers.CharField(
        required=False,
        default="",
        trim_whitespace=False,
        help_text="The topic, or for `subscribe` the topic filter.",
    )
    client_id = serializers.CharField(
        required=False, default="", max_length=explained.LONGEST_NAME, help_text="Without it, not checked."
    )


class RuleSerializer(serializers.Serializer):
    """One rule beside the question."""

    name = serializers.CharField()
    subject = serializers.CharField(help_text="`own topics`, or the subject of a grant.")
    allow = serializers.BooleanField()
    actions = serializers.CharField()
    filter = serializers.CharField(help_text="The topic filter with its placeholders filled.")
    outcome = serializers.CharField()
    sentence = serializers.CharField()


class WireAnswerSerializer(serializers.Serializer):
    """The answer of one dialect."""

    dialect = serializers.CharField()
    broker = serializers.CharField()
    path = serializers.CharField(help_text="The question, such as `go-auth/acl`.")
    allowed = serializers.BooleanField()
    status = serializers.IntegerField(
        allow_null=True, help_text="null for a broker that does not ask about this."
    )
    content_type = serializers.CharField()
    body = serializers.CharField(help_text="At most 2,000 characters.")


class AccessSerializer(Selectable):
    """A decision with its reason."""

    allowed = serializers.BooleanField()
    reason = serializers.CharField(help_text="The word of the reason, such as `no_grant`.")
    sentence = serializers.CharField()
    action = serializers.CharField()
    topic = serializers.CharField()
    mqtt_username = serializers.CharField()
    client_id = serializers.CharField(allow_null=True)
    client_ids = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        help_text="Those that it may connect as; null is any, and `*` at an end is a beginning of more.",
    )
    rule = serializers.CharField(help_text="The rule that decided, or an empty text.")
    nearest = serializers.CharField(help_text="The most similar rule if none allowed it, or an empty text.")
    closest = RuleSerializer(allow_null=True, help_text="The rule that decided, or the most similar one.")
    wire = WireAnswerSerializer(many=True, help_text="The answers to the brokers, by dialect.")


class Access(DeviceView):
    """A decision."""

    scopes = {"GET": "access:read"}
    query = AccessQuery

    @documented(
        operation_id="explain_access", summary="Explain what a device may do", responses=AccessSerializer
    )
    def get(self, request: Request, type: str, device_id: str) -> Response:  # noqa: A002 - the name in the address
        """Decide as for a broker, with the reason, the rule and the answers over the wire. It changes nothing."""
        _, device = self.device()
        self.require(visibility.VIEW, Grant)
        action, topic = self.params["action"], self.params["topic"]
        if action != CONNECT and not topic:
            raise invalid("topic", "Give the topic that the client uses.")
        try:
            found = explained.explain_device(
                device, action, "" if action == CONNECT else topic, self.params["client_id"]
            )
        except NotOneIdentity as error:
            raise Problem("conflict", f"{error}.") from error
        wanted = self.params["fields"]
        wire = explained.wire_of(found) if not wanted or "wire" in wanted else []
        return Response(AccessSerializer(_shown(found, wire), context=self.context()).data)


def _shown(found: Explanation, wire: list[WireAnswer]) -> dict[str, Any]:
    return {
        "allowed": found.allowed,
        "reason": found.reason,
        "sentence": explained.sentence(found),
        "action": found.action,
        "topic": found.topic,
        "mqtt_username": found.username,
        "client_id": found.client_id,
        "client_ids": None if found.client_ids is None else list(found.client_ids),
        "rule": found.rule,
        "nearest": found.nearest,
        "closest": None if found.closest is None else _rule(found.closest),
        "wire": [{**vars(answer), "body": answer.body[:LONGEST_BODY]} for answer in wire],
    }


def _rule(rule: TriedRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "subject": rule.subject,
        "allow": rule.allow,
        "actions": rule.actions.sentence,
        "filter": rule.filter,
        "outcome": rule.outcome.value,
        "sentence": rule.sentence,
    }
