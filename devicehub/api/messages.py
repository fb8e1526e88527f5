"""`/api/devices/{type}/{device_id}/messages/`: the messages of a device, as they came."""

from __future__ import annotations

import base64
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import visibility
from devicehub.api.base import DeviceView, ListView
from devicehub.api.fields import Moment, Selectable, Selected
from devicehub.api.filters import ChoiceFilter, PeriodFilterSet
from devicehub.api.operations import documented
from devicehub.kinds.registry import registry
from devicehub.messages.message import Outcome
from devicehub.models import BaseMessage, ProcessingStatus, QuarantinedMessage

MOST = 100  # Messages of a page: each may have a megabyte.
OUTCOMES = [outcome.value for outcome in Outcome]


class MessageSerializer(Selectable):
    """A message of a device, with its outcome."""

    id = serializers.IntegerField()
    topic = serializers.CharField()
    outcome = serializers.ChoiceField(choices=OUTCOMES, allow_blank=True)
    processing_status = serializers.ChoiceField(choices=ProcessingStatus.values)
    notes = serializers.ListField(
        child=serializers.CharField(), help_text="The omitted values, each with the reason."
    )
    error = serializers.CharField(source="processing_error", help_text="The reason why it failed.")
    quarantine_id = serializers.IntegerField(
        allow_null=True,
        help_text="The number in the quarantine, which holds the payload of a failed message.",
    )
    payload_json = serializers.JSONField(
        help_text="The payload, if it is JSON, or what CBOR says as JSON; otherwise null."
    )
    payload_base64 = serializers.SerializerMethodField(
        help_text="The bytes of another payload as base64, or null."
    )
    content_type = serializers.CharField()
    correlation_id = serializers.CharField()
    user_properties = serializers.JSONField(help_text="The user properties of MQTT 5.0 by name.")
    received_at = Moment()
    processed_at = Moment(allow_null=True)

    def get_payload_base64(self, message: BaseMessage) -> str | None:
        """Return the bytes of *message* as base64, or None."""
        raw = message.payload_raw
        return None if raw is None else base64.b64encode(raw).decode()


class MessageParameters(Selected):
    """The parameters of the list of messages."""

    limit = serializers.IntegerField(
        required=False, default=50, min_value=1, max_value=MOST, help_text="Rows of a page."
    )


class MessageFilter(PeriodFilterSet):
    """The filters of the list of messages, within those of one device, which an index finds."""

    outcome = ChoiceFilter(
        choices=[(word, word) for word in OUTCOMES], help_text="The outcome of the messages."
    )
    processing_status = ChoiceFilter(
        choices=ProcessingStatus.choices, help_text="The status of the messages."
    )


class Messages(DeviceView, ListView):
    """The messages of a device."""

    scopes = {"GET": "telemetry:read"}
    tag = "Telemetry"
    query = MessageParameters
    serializer_class = MessageSerializer
    heavy = {
        "payload_json": "payload_json",
        "payload_base64": "payload_raw",
        "user_properties": "user_properties",
    }
    filterset_class = MessageFilter

    def rows(self) -> QuerySet[Any]:
        """Return the messages of the device of the address."""
        kind, device = self.device()
        self.require(visibility.VIEW, kind.message_model)
        found: QuerySet[Any] = kind.message_model.objects.filter(device_id=device.pk)
        return found

    def get_queryset(self) -> QuerySet[Any]:
        """Return no rows, for the schema; each kind has a model of its own."""
        models = [kind.message_model for kind in registry]
        model: Any = models[0] if models else QuarantinedMessage
        return model._default_manager.none()

    @documented(
        operation_id="list_messages",
        summary="List the messages of a device",
        responses=MessageSerializer(many=True),
    )
    def get(self, request: Request, **parts: str) -> Response:
        """Return the messages as they came, each with its outcome, the newest first.

        A page of heavy messages has fewer rows than `limit`.
        """
        return self.list()
