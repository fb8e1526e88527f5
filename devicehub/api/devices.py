"""`/api/devices/`: devices of all types in one list, and one device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import ProtectedError, QuerySet, RestrictedError
from django.http import Http404
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc import audit
from devicehub import provisioning, removal, states, visibility
from devicehub.api import bodies, device_pages, etags, index, paging, repeatable
from devicehub.api.addresses import address
from devicehub.api.base import ApiView, DeviceView
from devicehub.api.device_credentials import CredentialsSerializer, HandoverSerializer, handed_over
from devicehub.api.fields import Choice, Closed, Moment, Reason, Selectable, Selected, SelectedOne
from devicehub.api.operations import IDEMPOTENCY_KEY, IF_MATCH, documented
from devicehub.api.problems import Problem, invalid
from devicehub.api.repeatable import Made
from devicehub.api.types import TopicSerializer, topics_of
from devicehub.credentials import answers, panel
from devicehub.kinds.identifiers import is_device_id
from devicehub.kinds.registry import Kind, registry
from devicehub.models import (
    MAX_TAGS,
    OPERATOR_STATES,
    BaseDevice,
    DeviceStatus,
    DeviceTag,
    InvalidDeviceId,
)
from devicehub.models.groups import LONGEST_HEARTBEAT

LARGEST_METADATA = 16 << 10  # bytes of the metadata of one device as JSON
OPERATOR_CHOICES = sorted(status.value for status in OPERATOR_STATES)
STATES = list(states.STATES)
MOST = 200  # Devices of a page: each has 28 members, so that a page of more takes more than 50 ms.
EXAMPLE = {
    "type": "weatherstation",
    "device_id": "STATION-001",
    "name": "Roof, north side",
    "site": "north",
    "tags": ["roof"],
    "metadata": {"installed_by": "ada"},
}


class Members(serializers.DictField):
    """An object of JSON with any members."""

    default_error_messages = {"large": "Give at most {most:,} bytes of JSON."}
    child = serializers.JSONField(allow_null=True)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return *data*. Raise ValidationError for anything but an object of bounded size."""
        if not isinstance(data, dict):
            self.fail("not_a_dict", input_type=type(data).__name__)
        if len(bodies.dumps(data)) > LARGEST_METADATA:
            self.fail("large", most=LARGEST_METADATA)
        return data

    def to_representation(self, value: Any) -> Any:
        """Return *value* as it is."""
        return value


class BatterySerializer(serializers.Serializer):
    """The charge of a battery."""

    value = serializers.FloatField()
    unit = serializers.CharField(help_text="`%`")


class DeviceSerializer(Selectable):
    """A device, without its credentials."""

    type = serializers.CharField()
    device_id = serializers.CharField()
    name = serializers.CharField()
    alias = serializers.CharField(
        help_text="Another name that its type gives it, such as the endpoint name of LwM2M, or an empty text."
    )
    site = serializers.CharField(help_text="The place of the device, or an empty text.")
    state = serializers.ChoiceField(
        choices=STATES, help_text="The state that needs a look first; `connected` if none does."
    )
    states = serializers.ListField(
        child=serializers.CharField(), help_text="All states that hold, that of `state` first."
    )
    status = serializers.CharField(
        help_text="The last status: one that the device reported, or `maintenance` or `provisioning` of a person."
    )
    connected = serializers.BooleanField(help_text="Whether it is connected to the broker.")
    is_active = serializers.BooleanField(help_text="A device that is not active is refused in everything.")
    battery = BatterySerializer(allow_null=True)
    firmware_version = serializers.CharField()
    state_fields = Members(help_text="The state fields of its type, by name.")
    tags = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="null for callers who may not see tags."
    )
    groups = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        help_text="The names of its groups in grants; null for callers who may not see groups.",
    )
    metadata = Members(help_text="Values of your own.")
    expected_heartbeat = serializers.FloatField(
        allow_null=True, help_text="Seconds between two messages of this device; null is that of its type."
    )
    heartbeat_interval = serializers.FloatField(
        help_text="Seconds between two messages that hold for it now."
    )
    rate_limit = serializers.CharField(
        help_text="Messages that this device may send, such as `60/m`; an empty text is the limit of all devices."
    )
    mqtt_username = serializers.CharField(allow_null=True)
    mqtt_client_id = serializers.CharField(allow_null=True, help_text="A client id beside the device id.")
    last_seen = Moment(allow_null=True)
    last_message_at = Moment(allow_null=True)
    last_reading_at = Moment(allow_null=True)
    connected_changed_at = Moment(allow_null=True)
    created_at = Moment()
    updated_at = Moment()
    removal_requested_at = Moment(
        allow_null=True, help_text="It is removed in the background since then, unless it is enabled."
    )


class OneDeviceSerializer(DeviceSerializer):
    """A device with its topics and the state of its credentials."""

    topics = TopicSerializer(many=True)
    credentials = CredentialsSerializer()


class TagField(serializers.RegexField):
    """A tag."""

    def __init__(self, **options: Any) -> None:
        super().__init__(r"^[A-Za-z0-9_-]{1,50}$", **options)


class EditableSerializer(Closed):
    """The values of a device that people change."""

    name = serializers.CharField(max_length=255, required=False, allow_blank=True)
    site = serializers.CharField(max_length=100, required=False, allow_blank=True)
    tags = serializers.ListField(child=TagField(), max_length=MAX_TAGS, required=False)
    metadata = Members(required=False)
    expected_heartbeat = serializers.FloatField(
        required=False, allow_null=True, min_value=1, max_value=LONGEST_HEARTBEAT
    )
    rate_limit = serializers.CharField(required=False, allow_blank=True, max_length=40)
    reason = Reason()


class NewDeviceSerializer(EditableSerializer):
    """The values of a new device."""

    type = serializers.CharField(max_length=100)
    device_id = serializers.CharField(
        max_length=128,
        required=False,
        default="",
        allow_blank=True,
        trim_whitespace=False,
        help_text="1-128 letters, digits, `_`, `:` and `-`; without it, the next free id.",
    )

    def validate_device_id(self, value: str) -> str:
        """Return *value*. Raise ValidationError for a text that cannot be a device id."""
        if value and not is_device_id(value):
            raise serializers.ValidationError("Use letters, digits and _ : - only, at most 128.")
        return value


class DeviceChangesSerializer(EditableSerializer):
    """The values to change; others stay as they are."""

    is_active = serializers.BooleanField(
        required=False, help_text="false disables the device at once; true cancels a removal too."
    )
    status = Choice(
        choices=OPERATOR_CHOICES,
        required=False,
        allow_null=True,
        help_text="A state that people set; null gives the status back to the device.",
    )


class DeviceQuery(Selected):
    """The filters of the list. Each column has an index in the order of the device ids."""

    limit = serializers.IntegerField(
        required=False, default=paging.DEFAULT, min_value=1, max_value=MOST, help_text="Rows of a page."
    )

    type = serializers.CharField(required=False, help_text="The devices of this type.")
    site = serializers.CharField(required=False, allow_blank=True, help_text="Those at this site.")
    status = Choice(required=False, choices=DeviceStatus.values, help_text="Those with this last status.")
    connected = serializers.BooleanField(required=False, help_text="Those that are connected, or not.")
    is_active = serializers.BooleanField(required=False, help_text="Those that are active, or disabled.")
    tag = serializers.CharField(required=False, help_text="Those with this tag.")
    group = serializers.CharField(required=False, help_text="The members of this group.")
    prefix = serializers.CharField(required=False, help_text="Those whose device id begins with this text.")
    username = serializers.CharField(required=False, help_text="The one with this MQTT username.")


class Devices(ApiView):
    """The devices of all types that the caller may see."""

    scopes = {"GET": "devices:read", "POST": "devices:write"}
    tag = "Devices"
    query = DeviceQuery
    pagination_class = paging.CursorPages
    NOT_FILTERS: ClassVar[frozenset[str]] = frozenset({"fields", "cursor", "limit"})

    @documented(
        operation_id="list_devices",
        summary="List devices of all types",
        responses=DeviceSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """Return the devices in the order of type and device id."""
        user: Any = request.user
        wanted = {name: value for name, value in self.params.items() if name not in self.NOT_FILTERS}
        if "type" in wanted and wanted["type"] not in {kind.slug for kind in visibility.kinds_of(user)}:
            raise invalid("type", f"There is no type {wanted['type'][:100]} that you may see.")
        if "group" in wanted and not device_pages.sees_groups_of(user):
            raise Problem("not-allowed", "You may not see groups of devices.")
        if "tag" in wanted:
            self.require(visibility.VIEW, DeviceTag)
        DeviceSerializer(context=self.context()).fields  # noqa: B018 - It refuses unknown members, also of no rows.
        page = device_pages.page(user, wanted, self.params["cursor"], self.params["limit"])
        rows = described(user, page.rows, lambda kind: visibility.devices(kind, user))
        shown = DeviceSerializer(rows, many=True, context=self.context())
        return Response(paging.answer(request, page, shown.data))

    @documented(
        operation_id="create_device",
        summary="Add a device",
        parameters=[IDEMPOTENCY_KEY],
        request=NewDeviceSerializer,
        responses={201: HandoverSerializer},
        examples=[OpenApiExample("A weather station", EXAMPLE, request_only=True)],
    )
    @sensitive_variables()
    def post(self, request: Request) -> Response:
        """Add a device. The answer has its credentials, and no later one shows them.

        A caller who is limited to sites has to name one of them, and sets no tags.
        """
        values = self.body(NewDeviceSerializer)
        user: Any = request.user
        kind = registry.get(values.pop("type"))
        if kind is None or not visibility.may(user, visibility.VIEW, kind.device_model):
            known = ", ".join(sorted(each.slug for each in visibility.kinds_of(user))) or "none"
            raise invalid("type", f"There is no such type; there are {known}.")
        self.require(visibility.ADD, kind.device_model)
        reason, device_id = values.pop("reason"), values.pop("device_id")

        def make() -> Made:
            try:
                with audit.because(reason), transaction.atomic():
                    device, made = provisioning.add_device(kind, device_id, user, **values)
                    answers.record_shown(kind, device, made)
            except provisioning.IdentityTaken as error:
                raise Problem("taken", f"{str(error).removesuffix('.')}.") from error
            except InvalidDeviceId as error:
                raise invalid("device_id", " ".join(error.messages)) from error
            location = address("api_device", type=kind.slug, device_id=device.device_id)
            return Made(201, handed_over(kind, device, made), location, holds_secret=True)

        return repeatable.once(request, make)


class Device(DeviceView):
    """One device."""

    scopes = {"GET": "devices:read", "PATCH": "devices:write", "DELETE": "devices:write"}
    open_to_devices = frozenset({"GET", "HEAD"})
    query = SelectedOne

    @documented(
        has_etag=True, operation_id="get_device", summary="Read a device", responses=OneDeviceSerializer
    )
    def get(self, request: Request, type: str, device_id: str) -> Response:  # noqa: A002 - the name in the address
        """Return the device with its state, its topics and the state of its credentials."""
        kind, device = self.device()
        return self._answer(kind, device)

    @documented(
        has_etag=True,
        operation_id="update_device",
        summary="Change a device",
        parameters=[IF_MATCH],
        request=DeviceChangesSerializer,
        responses=OneDeviceSerializer,
    )
    def patch(self, request: Request, type: str, device_id: str) -> Response:  # noqa: A002 - the name in the address
        """Change the values that are given. `tags` and `metadata` are replaced as a whole.

        Disabling takes effect at once: every question about the device is denied, and none of its messages is stored.
        """
        values = self.body(DeviceChangesSerializer, partial=True)
        reason = values.pop("reason", "")
        with transaction.atomic(), audit.because(reason):
            kind, device = self.device(visibility.CHANGE)
            self._check(request, kind, device)
            provisioning.change_device(device, request.user, values)
        return self._answer(kind, device)

    @documented(
        operation_id="delete_device",
        summary="Remove a device",
        parameters=[IF_MATCH],
        responses={
            204: OpenApiResponse(description="It is removed, with its values and messages."),
            202: OpenApiResponse(description="It is disabled, and is removed in the background."),
        },
    )
    def delete(self, request: Request, type: str, device_id: str) -> Response:  # noqa: A002 - the name in the address
        """Remove the device with its values and messages.

        One with many rows is disabled at once and removed in the background; enabling it until then keeps it.
        """
        with transaction.atomic():
            kind, device = self.device(visibility.DELETE)
            self._check(request, kind, device)
            try:
                is_gone = removal.delete_or_request([device])
            except (ProtectedError, RestrictedError) as error:
                raise Problem("conflict", "Other rows of the project refer to this device.") from error
        return Response(status=204 if is_gone else 202)

    def _check(self, request: Request, kind: Kind, device: BaseDevice) -> None:
        """Raise Problem `changed` unless the request has no If-Match, or that of the locked *device*."""
        if request.headers.get("If-Match"):
            etags.check(request, editable(self._described(kind, device)))

    def _described(self, kind: Kind, device: BaseDevice) -> dict[str, Any]:
        rows = kind.device_model.objects.all()
        key = (kind.slug, device.pk, device.device_id)
        found = described(self.request.user, [key], lambda _: rows)
        if not found:  # It was removed meanwhile.
            raise Http404
        return found[0]

    def _answer(self, kind: Kind, device: BaseDevice) -> Response:
        shown = self._described(kind, device)
        wanted = self.params.get("fields") or ()
        if not wanted or "topics" in wanted:
            shown["topics"] = topics_of(kind, device.device_id)
        if not wanted or "credentials" in wanted:
            shown["credentials"] = panel.of(kind, device)
        content = OneDeviceSerializer(shown, context=self.context()).data
        return Response(content, headers={"ETag": etags.of(editable(shown))})


def editable(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that people change, of a device as described() has it: the content of its `ETag`."""
    names = ("name", "site", "tags", "metadata", "expected_heartbeat", "rate_limit", "is_active")
    status = shown["status"] if shown["status"] in OPERATOR_STATES else None
    return {**{name: shown[name] for name in names}, "status": status}


def described(user: Any, keys: Iterable[device_pages.Key], rows_of: Any) -> list[dict[str, Any]]:
    """Return the devices of *keys* among *rows_of(kind)*, in their order, as DeviceSerializer shows them.

    It takes a query for each kind, and one for all tags and groups. A device that is gone meanwhile is left out.
    """
    wanted = list(keys)
    by_kind: dict[str, list[int]] = {}
    for slug, pk, _ in wanted:
        by_kind.setdefault(slug, []).append(pk)
    found: dict[tuple[str, int], tuple[Kind, BaseDevice]] = {}
    for slug, pks in by_kind.items():
        kind = registry.get(slug)
        if kind is not None:
            rows: QuerySet[Any] = rows_of(kind)
            devices = device_pages.read(kind, rows, pks)
            found |= {(slug, pk): (kind, device) for pk, device in devices.items()}
    tags, groups = device_pages.belonging(user, [f"{slug}/{device_id}" for slug, _, device_id in wanted])
    return [_described(*found[slug, pk], tags, groups) for slug, pk, _ in wanted if (slug, pk) in found]


Named = Mapping[str, list[str]] | None


def _described(kind: Kind, device: Any, tags: Named, groups: Named) -> dict[str, Any]:
    key = kind.key(device.device_id)
    holding = states.holding(kind, device)
    battery = device.battery_level
    return {
        "type": kind.slug,
        "device_id": device.device_id,
        "name": device.name,
        "alias": str(getattr(device, kind.pages.alias)) if kind.pages.alias else "",
        "site": device.site,
        "state": holding[0].name,
        "states": [state.name for state in holding],
        "status": device.status,
        "connected": device.connected,
        "is_active": device.is_active,
        "battery": None if battery is None else {"value": battery, "unit": "%"},
        "firmware_version": device.firmware_version,
        "state_fields": {name: getattr(device, name) for name in kind.state_fields},
        "tags": None if tags is None else sorted(tags.get(key, ())),
        "groups": None if groups is None else sorted(groups.get(key, ())),
        "metadata": device.metadata,
        "expected_heartbeat": device.own_heartbeat,
        "heartbeat_interval": states.interval_of(kind, device),
        "rate_limit": device.own_rate_limit or "",
        "mqtt_username": device.mqtt_username,
        "mqtt_client_id": device.mqtt_client_id,
        "last_seen": device.last_seen,
        "last_message_at": device.last_message_at,
        "last_reading_at": device.last_reading_at,
        "connected_changed_at": device.connected_changed_at,
        "created_at": device.created_at,
        "updated_at": device.updated_at,
        "removal_requested_at": device.removal_requested_at,
    }


index.show("devices", "api_devices")
