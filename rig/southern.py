"""A device of a site that a caller must not reach, with rows in every table that knows devices.

Each text of these rows carries a mark that no address of a walk holds.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.utils import timezone

from authsvc.models import Account, AuditEntry, Broker, Denial, Grant, LastLogin
from devicehub import api_keys
from devicehub.lwm2m.models import (
    Endpoint,
    EndpointMessage,
    Event,
    EventResource,
    ObjectType,
    Resource,
    ResourceType,
    ResourceValue,
)
from devicehub.models import (
    DeviceCommand,
    DeviceGroup,
    DeviceOptions,
    DeviceTag,
    GroupMember,
    QuarantinedMessage,
    RemovalRequest,
    default_deadline,
)
from fleet.models import WeatherStationDevice

MARK = "hiddenmark"
VALUE = "12.34567"  # The only reading.
SOUTH, KEY = "SOUTH-1", "weatherstation/SOUTH-1"
DEFINITIONS = (ObjectType, ResourceType)


def device() -> Any:
    """Return the device of the southern site, which is created with all its rows."""
    now = timezone.now()
    device: Any = WeatherStationDevice.objects.create(
        device_id=SOUTH, name=MARK, site=f"{MARK}-site", metadata={MARK: MARK}, firmware_version=MARK
    )
    device.generate_credentials()
    device.previous_password_hash, device.previous_valid_until = "before", now + timedelta(days=1)
    device.save()
    device.readings.create(timestamp=now, temperature=float(VALUE))
    device.messages.create(topic=f"things/{MARK}", payload_json={MARK: 1}, processing_error=MARK)
    DeviceCommand.objects.create(device_key=KEY, name=MARK, payload={MARK: 1}, deadline=default_deadline())
    QuarantinedMessage.objects.create(
        device_key=KEY, reason="not_json", detail=MARK, topic=MARK, payload=MARK.encode(), received_at=now
    )
    Denial.objects.create(
        dialect="go-auth",
        username=MARK,
        principal=KEY,
        action="publish",
        topic=MARK,
        reason="no_grant",
        first_at=now,
        last_at=now,
    )
    LastLogin.objects.create(key=KEY, first_at=now, at=now, broker=MARK, client_id=MARK)
    AuditEntry.objects.create(
        at=now, actor_kind="user", actor=MARK, action="rotated", object_key=KEY, reason=MARK
    )
    DeviceTag.objects.create(device_key=KEY, tag=MARK)
    DeviceOptions.objects.create(device_key=KEY)
    group = DeviceGroup.objects.create(slug=MARK, name=MARK)
    GroupMember.objects.create(group=group, device_key=KEY)
    Grant.objects.create(subject=f"key:{KEY}", actions="publish", filter=f"{MARK}/#", note=MARK)
    Account.objects.create(username=MARK)
    Broker.objects.create(name=MARK, token_digest=uuid.uuid4().hex)
    RemovalRequest.objects.create(device_key="weatherstation/SOUTH-2", requested_at=now)
    owner = User.objects.create_user("south")
    for label, fields in (
        (
            "rotation",
            {"name": MARK, "started_by": MARK, "until": now + timedelta(days=1)}
            | dict.fromkeys(("started_at", "touched_at", "written_at"), now),
        ),
        ("deviceimport", {"file_name": MARK, "user": owner, "uploaded_at": now}),
    ):
        apps.get_model("devicehub", label).objects.create(**fields)
    rotation = apps.get_model("devicehub", "rotation").objects.get()
    rotation.members.create(
        kind="weatherstation",
        device_key=KEY,
        changed_at=device.credentials_changed_at,
        password_mark=device.password_mark,
    )
    api_keys.create(owner, MARK, ["access:read"])
    add_endpoint()
    return device


def add_endpoint() -> None:
    """Create an LwM2M endpoint of the southern site, with rows in every table of endpoints."""
    now = timezone.now()
    endpoint = Endpoint.objects.create(
        device_id=SOUTH, name=MARK, site=f"{MARK}-site", endpoint_name=f"{MARK} 7", registered=True
    )
    EndpointMessage.objects.create(device=endpoint, topic=f"things/{MARK}", processing_error=MARK)
    kind = ObjectType.objects.create(object_id=33001, name="Object of the walk")
    resource = ResourceType.objects.create(
        object=kind, resource_id=1, name="Resource of the walk", type="String"
    )
    value = {"path": "33001/0/1", "type": "String", "text": MARK, "timestamp": now}
    ids = {"object_id": 33001, "object_instance": 0, "resource_id": 1, "resource_type": resource}
    event = Event.objects.create(device=endpoint, type="alarm", detail=MARK, timestamp=now, received_at=now)
    Resource.objects.create(device=endpoint, received_at=now, **ids, **value)
    ResourceValue.objects.create(device=endpoint, received_at=now, event=event, **value)
    EventResource.objects.create(device=endpoint, event=event, **value)


def rows() -> dict[str, list[Any]]:
    """Return all rows of our tables that hold the mark, or the key or the id of the southern device."""
    found: dict[str, list[Any]] = {}
    for model in apps.get_models():
        # Definitions of resources belong to no site, and thousands are shipped.
        if model._meta.app_label not in ("fleet", "devicehub", "authsvc", "lwm2m") or model in DEFINITIONS:
            continue
        found[model._meta.label] = [
            row for row in model._base_manager.order_by("pk").values() if is_southern(row)
        ]
    return found


def is_southern(row: dict[str, Any]) -> bool:
    """Return whether *row* holds the mark, or names the southern device."""
    text = repr(row)
    return MARK in text or SOUTH in text
