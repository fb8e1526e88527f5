"""`/api/devices/{type}/{device_id}/credentials/`: new secrets for a device, and their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc import audit
from devicehub import provisioning, visibility
from devicehub.api import repeatable
from devicehub.api.addresses import address
from devicehub.api.base import DeviceView
from devicehub.api.fields import Choice, Closed, Moment, Reason
from devicehub.api.operations import IDEMPOTENCY_KEY, documented
from devicehub.api.overlaps import Overlap
from devicehub.api.repeatable import Made
from devicehub.api.types import TopicSerializer, topics_of
from devicehub.credentials import answers, handover, panel
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice

PASSWORD, API_KEY = "password", "api_key"
SECRETS = [PASSWORD, API_KEY]
STATES = list(panel.STATES)


class PasswordOverlapSerializer(serializers.Serializer):
    """Two passwords are valid at a time."""

    until = Moment(allow_null=True, help_text="The end of the old one; null is the first use of the new one.")
    is_new_used = serializers.BooleanField()
    new_used_at = Moment(allow_null=True)
    old_used_at = Moment(allow_null=True)


class CredentialsSerializer(serializers.Serializer):
    """The state of the credentials of a device, without any secret."""

    state = serializers.ChoiceField(choices=STATES)
    has_password = serializers.BooleanField()
    has_api_key = serializers.BooleanField()
    mqtt_username = serializers.CharField(source="username")
    client_ids = serializers.ListField(child=serializers.CharField(), help_text="The client ids of its own.")
    changed_at = Moment(allow_null=True)
    expires_at = Moment(allow_null=True, help_text="The password is refused from then on.")
    overlap = PasswordOverlapSerializer(allow_null=True)
    first_login_at = Moment(allow_null=True)
    last_login_at = Moment(allow_null=True)
    last_login_broker = serializers.CharField()
    last_login_client_id = serializers.CharField()
    last_login_address = serializers.CharField()


class HandoverSerializer(serializers.Serializer):
    """All that goes onto a device, with the secrets that were made now. No other answer shows them."""

    type = serializers.CharField()
    device_id = serializers.CharField()
    url = serializers.CharField(
        help_text="The address of the broker, such as `mqtts://broker.example.org:8883`."
    )
    host = serializers.CharField()
    port = serializers.IntegerField()
    tls = serializers.BooleanField()
    client_id = serializers.CharField()
    mqtt_username = serializers.CharField()
    mqtt_password = serializers.CharField(allow_null=True, help_text="null if it was not made now.")
    api_key = serializers.CharField(allow_null=True, help_text="null if it was not made now.")
    topics = TopicSerializer(many=True)


class RotationSerializer(Closed):
    """The secret to replace, and the end of the old one."""

    what = Choice(choices=SECRETS)
    overlap = Overlap()
    reason = Reason()

    def validate(self, attrs: Any) -> Any:
        """Return *attrs*. Raise ValidationError for an overlap of an API key."""
        if attrs["what"] == API_KEY and "overlap" in self.initial_data:
            text = "An API key has no overlap: the old one ends at once. Leave it out."
            raise serializers.ValidationError({"overlap": text})
        return attrs


class RevocationSerializer(Closed):
    """The reason of a revocation."""

    reason = Reason()


def handed_over(kind: Kind, device: BaseDevice, secrets: Mapping[str, str]) -> dict[str, Any]:
    """Return what goes onto *device*, with the *secrets* that were made now."""
    found = handover.of(kind, device, secrets)
    return {
        "type": kind.slug,
        "device_id": device.device_id,
        "url": found.address.url,
        "host": found.address.host,
        "port": found.address.port,
        "tls": found.address.tls,
        "client_id": found.client_id,
        "mqtt_username": found.username,
        "mqtt_password": found.password or None,
        "api_key": found.api_key or None,
        "topics": topics_of(kind, device.device_id),
    }


class Rotate(DeviceView):
    """A new secret."""

    scopes = {"POST": "credentials:write"}

    @documented(
        operation_id="rotate_credentials",
        summary="Make a new password or API key",
        parameters=[IDEMPOTENCY_KEY],
        request=RotationSerializer,
        responses={200: HandoverSerializer},
        examples=[
            OpenApiExample(
                "A password with an overlap", {"what": "password", "overlap": "24h"}, request_only=True
            ),
            OpenApiExample("An API key", {"what": "api_key", "reason": "lost"}, request_only=True),
        ],
    )
    @sensitive_variables()
    def post(self, request: Request, type: str, device_id: str) -> Response:  # noqa: A002 - the name in the address
        """Make a new secret for the device. The answer shows it, and no later one does.

        A new API key ends the old one and its tokens at once, so it takes no `overlap`.
        """
        values = self.body(RotationSerializer)
        self.device()

        def make() -> Made:
            with audit.because(values["reason"]):
                kind, device = self.device(visibility.CHANGE)
                if values["what"] == API_KEY:
                    made = {"api_key": provisioning.rotate_api_key(device)}
                else:
                    made = {
                        "mqtt_password": provisioning.rotate_password(device, valid_until=values["overlap"])
                    }
                answers.record_shown(kind, device, made)
            location = address("api_device", type=kind.slug, device_id=device.device_id)
            return Made(200, handed_over(kind, device, made), location, holds_secret=True)

        return repeatable.once(request, make)


class Revoke(DeviceView):
    """The end of all credentials."""

    scopes = {"POST": "credentials:write"}

    @documented(
        operation_id="revoke_credentials",
        summary="End password, API key and tokens",
        request=RevocationSerializer,
        responses={200: CredentialsSerializer},
    )
    def post(self, request: Request, type: str, device_id: str) -> Response:  # noqa: A002 - the name in the address
        """End the password, the API key and the tokens of the device: every further question about it is denied.

        A device without credentials stays as it is, so the request may be repeated.
        """
        values = self.body(RevocationSerializer)
        with transaction.atomic(), audit.because(values["reason"]):
            kind, device = self.device(visibility.CHANGE)
            if provisioning.has_credentials(device):
                provisioning.revoke(device)
        return Response(CredentialsSerializer(panel.of(kind, device)).data)
