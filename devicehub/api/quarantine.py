"""`/api/quarantine/`: messages that could not be stored, and their replay."""

from __future__ import annotations

import base64
from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Length
from django.http import Http404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import visibility
from devicehub.api.base import ApiView, ListView
from devicehub.api.fields import Moment, Selectable, SelectedOne
from devicehub.api.filters import ChoiceFilter, PeriodFilterSet, TextFilter
from devicehub.api.operations import documented, refused
from devicehub.api.problems import Problem
from devicehub.ingest.replay import replay
from devicehub.messages.message import FailureReason, Outcome
from devicehub.models import QuarantinedMessage

REASONS = [reason.value for reason in FailureReason]


class QuarantinedSerializer(Selectable):
    """A message in quarantine, without its payload."""

    id = serializers.IntegerField()
    reason = serializers.ChoiceField(choices=REASONS)
    detail = serializers.CharField(help_text="The fault in words.")
    topic = serializers.CharField()
    device = serializers.CharField(
        source="device_key", help_text="The key of its device, or an empty text if the topic names none."
    )
    size = serializers.IntegerField(source="length", help_text="The bytes of its payload.")
    content_type = serializers.CharField()
    correlation_id = serializers.CharField()
    user_properties = serializers.JSONField(help_text="The user properties of MQTT 5.0 by name.")
    retain = serializers.BooleanField()
    received_at = Moment()
    replayed_at = Moment(allow_null=True)
    dismissed_at = Moment(allow_null=True)


class QuarantinedWithPayloadSerializer(QuarantinedSerializer):
    """A message in quarantine with its payload, in one of two members."""

    payload = serializers.SerializerMethodField(help_text="The payload, if it is text in UTF-8, or null.")
    payload_base64 = serializers.SerializerMethodField(help_text="Another payload as base64, or null.")

    def get_payload(self, row: QuarantinedMessage) -> str | None:
        """Return the payload of *row* as text; None if it is not text."""
        try:
            return bytes(row.payload).decode()
        except UnicodeDecodeError:
            return None

    def get_payload_base64(self, row: QuarantinedMessage) -> str | None:
        """Return the payload of *row* as base64; None if it is text."""
        return None if self.get_payload(row) is not None else base64.b64encode(row.payload).decode()


class ReplaySerializer(serializers.Serializer):
    """The outcome of a replay."""

    id = serializers.IntegerField()
    outcome = serializers.ChoiceField(choices=[outcome.value for outcome in Outcome])
    reason = serializers.ChoiceField(
        choices=REASONS, allow_null=True, help_text="The reason why it failed again, or null."
    )
    detail = serializers.CharField(help_text="The fault of this time in words, or an empty text.")


class QuarantineFilter(PeriodFilterSet):
    """The filters of the list of the quarantine."""

    class Meta:
        model = QuarantinedMessage
        fields: tuple[str, ...] = ()

    reason = ChoiceFilter(
        choices=[(reason, reason) for reason in REASONS], help_text="The reason of the messages."
    )
    device = TextFilter(field_name="device_key", help_text="The key of the device.")


class OfQuarantine(ApiView):
    """A view of the quarantine."""

    tag = "Telemetry"

    def rows(self) -> QuerySet[Any]:
        """Return the messages that the caller may see. Raise Problem `not-allowed`."""
        self.require(visibility.VIEW, QuarantinedMessage)
        return visibility.rows(
            QuarantinedMessage.objects.annotate(length=Length("payload")), self.request.user
        )


class Quarantine(OfQuarantine, ListView):
    """The messages in quarantine that the caller may see."""

    scopes = {"GET": "telemetry:read"}
    serializer_class = QuarantinedSerializer
    filterset_class = QuarantineFilter
    order = ("-received_at", "-id")

    def rows(self) -> QuerySet[Any]:
        """Return the messages without their payloads, of which each may have a megabyte."""
        return super().rows().defer("payload")

    @documented(
        operation_id="list_quarantine",
        summary="List the quarantine",
        responses=QuarantinedSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """Return the messages that could not be stored, the latest first, without their payloads."""
        return self.list()


class OneMessage(OfQuarantine):
    """One message in quarantine."""

    scopes = {"GET": "telemetry:read"}
    query = SelectedOne

    @documented(
        operation_id="get_quarantined_message",
        summary="Read a message in quarantine",
        responses=QuarantinedWithPayloadSerializer,
    )
    def get(self, request: Request, number: int) -> Response:
        """Return the message with its payload."""
        row = self.rows().filter(pk=number).first()
        if row is None:
            raise Http404
        return Response(QuarantinedWithPayloadSerializer(row, context=self.context()).data)


class Replay(OfQuarantine):
    """The replay of a message in quarantine."""

    scopes = {"POST": "devices:write"}

    @documented(
        operation_id="replay_quarantined_message",
        summary="Replay a message in quarantine",
        request=None,
        responses={
            200: ReplaySerializer,
            **refused(409, "The message was replayed already."),
        },
    )
    def post(self, request: Request, number: int) -> Response:
        """Store the message with its first time of receipt, if the cause of its failure is gone.

        A message that fails again stays in quarantine and may be replayed later; the answer has the reason.
        """
        chosen = self.rows().filter(pk=number)
        if not chosen.exists():
            raise Http404
        self.require(visibility.CHANGE, QuarantinedMessage)
        report = replay(chosen.filter(replayed_at=None))
        if not report.outcomes:
            raise Problem("conflict", "The message was replayed already.")
        (outcome,) = report.outcomes
        failure = next(iter(report.failures), None)
        shown = {
            "id": number,
            "outcome": outcome.value,
            "reason": failure and failure.reason,
            "detail": failure.detail if failure else "",
        }
        return Response(ReplaySerializer(shown).data)
