"""`POST /api/devices/{type}/{device_id}/readings/`: the data of a device over HTTP, as messages of the pipeline."""

from __future__ import annotations

from django.http import Http404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc.operation import metrics
from devicehub.api import bodies
from devicehub.api.operations import ProblemSerializer, documented
from devicehub.api.problems import MEDIA_TYPE, Problem
from devicehub.ingest import limits, posted
from devicehub.kinds import topics
from devicehub.kinds.topics import MessageType
from devicehub.messages.message import MAX_KEPT, FailureReason, Message, Outcome

REFUSED, TOO_LARGE, DATABASE, TIMED_OUT = "refused", "too_large", "database", "timed_out"
NOT_STORED = "The database cannot store. The message is not stored; send it again."
MAYBE_STORED = (
    "The database takes too long. The message may be stored; send it again: with times of the device it is then a "
    "duplicate, and without them it may be stored twice."
)
_posts = metrics.counter(
    "devicehub_api_posts",
    "Posts of readings by devices, by outcome, failed and refused ones also by reason.",
    ["outcome", "reason"],
)


class PostedSerializer(serializers.Serializer):
    """How a message ended."""

    outcome = serializers.ChoiceField(choices=[outcome.value for outcome in Outcome])
    notes = serializers.ListField(
        child=serializers.CharField(), help_text="The values that were left out, each with the reason."
    )
    reason = serializers.ChoiceField(
        choices=[reason.value for reason in FailureReason],
        allow_null=True,
        help_text="Why it failed; null for another outcome.",
    )
    detail = serializers.CharField(help_text="The fault, in words; an empty text without one.")
    quarantined = serializers.BooleanField(
        help_text="True if the quarantine keeps the message, from where an operator can replay it."
    )


FLAT = OpenApiExample(
    "flat",
    value={"temperature": 21.5, "timestamp": "2026-12-01T06:00:00Z"},
    request_only=True,
    media_type="application/json",
)
SAMPLES = OpenApiExample(
    "several samples",
    value=[
        {"temperature": 21.5, "timestamp": "2026-12-01T06:00:00Z"},
        {"temperature": 21.7, "timestamp": "2026-12-01T06:01:00Z"},
    ],
    request_only=True,
    media_type="application/json",
)
SENML = OpenApiExample(
    "SenML",
    value=[{"bn": "", "bt": 1796104800, "n": "temperature", "u": "Cel", "v": 21.5}],
    request_only=True,
    media_type="application/json",
)
STORED = OpenApiExample(
    "stored",
    value={"outcome": "stored", "notes": [], "reason": None, "detail": "", "quarantined": False},
    response_only=True,
    status_codes=["202"],
)
FAILED = OpenApiExample(
    "failed",
    value={
        "outcome": "failed",
        "notes": [],
        "reason": "not_json",
        "detail": "the payload is empty",
        "quarantined": True,
    },
    response_only=True,
    status_codes=["202"],
)


class Posting:
    """The method POST of a device's readings, for the view of these. Put it before the other bases of the view."""

    open_to_devices = of_devices_only = frozenset({"POST"})

    @documented(
        operation_id="post_readings",
        summary="Send readings as a device",
        request={
            "application/json": OpenApiTypes.ANY,
            "application/cbor": OpenApiTypes.BINARY,
            "application/senml+cbor": OpenApiTypes.BINARY,
            "application/vnd.oma.lwm2m+cbor": OpenApiTypes.BINARY,
            "application/vnd.oma.lwm2m+tlv": OpenApiTypes.BINARY,
            "text/plain": OpenApiTypes.STR,
        },
        responses={
            202: PostedSerializer,
            (413, MEDIA_TYPE): OpenApiResponse(ProblemSerializer, "The body has more than 1 MiB."),
            (503, MEDIA_TYPE): OpenApiResponse(
                ProblemSerializer,
                "Not stored, or perhaps, as `detail` says; send it again after `Retry-After`.",
            ),
        },
        examples=[FLAT, SAMPLES, SENML, STORED, FAILED],
    )
    def post(self, request: Request, **address: str) -> Response:
        """Store the body as a message on the data topic of the device, in any form of a payload over MQTT.

        Only the device itself may do this, with its own API key. The `Content-Type` names the form, as that of MQTT 5
        does; of another one the form is recognised. JSON may also be `application/senml+json` or
        `application/vnd.oma.lwm2m+json`; these are not listed, since generators tell bodies of JSON apart by their
        schema alone. A body has at most 1 MiB.

        A failed message is answered with 202 too, with the reason: the same one would fail again. If `quarantined` is
        true, an operator can replay it. Beyond the rate limit of the device the answer is 429.

        No `Idempotency-Key` is needed: the repetition of a message with a time of the device is a `duplicate`, and is
        not stored again. A message without such a time is new each time.
        """
        caller = request.user
        if address != {"type": caller.kind.slug, "device_id": caller.device_id}:
            raise Http404
        try:
            body = bodies.read(request._request, MAX_KEPT)
        except Problem:
            _posts.add(REFUSED, TOO_LARGE)
            raise
        topic = topics.build(caller.kind, caller.device_id, MessageType.DATA)
        content_type = request._request.headers.get("Content-Type", "")
        try:
            ended = posted.store(Message(topic, body, timezone.now(), content_type=content_type))
        except posted.UnknownOutcome as error:
            _posts.add(REFUSED, TIMED_OUT)
            raise Problem("unavailable", MAYBE_STORED, headers={"Retry-After": "5"}) from error
        if ended is None:
            _posts.add(REFUSED, DATABASE)
            raise Problem("unavailable", NOT_STORED, headers={"Retry-After": "5"})
        _posts.add(ended.outcome.value, str(ended.reason or ""))
        shown = {
            "outcome": ended.outcome.value,
            "notes": list(ended.notes),
            "reason": None if ended.reason is None else ended.reason.value,
            "detail": ended.detail,
            "quarantined": ended.is_kept,
        }
        if ended.reason is FailureReason.RATE_LIMITED:
            wait = limits.wait(caller.key)
            text = f"The device sent {ended.detail}."
            raise Problem("too-many-requests", text, headers={"Retry-After": str(wait)})
        return Response(shown, status=202)
