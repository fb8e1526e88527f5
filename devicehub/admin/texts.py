"""The help texts of columns. They stand here because a text in an abstract model would need a migration in projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import models
from django.utils import timezone
from django.utils.text import capfirst

from authsvc.credentials import Credentials
from authsvc.models import Account, AuditEntry, Broker, Denial, Grant
from devicehub.kinds.registry import registry
from devicehub.models import (
    BaseDevice,
    BaseMessage,
    BaseReading,
    CountedRefusal,
    DeviceCommand,
    DeviceGroup,
    DeviceOptions,
    DeviceTag,
    GroupMember,
    IngestWorker,
    QuarantinedMessage,
    RemovalRequest,
    RetainedTopic,
    SiteScope,
)

KEY = "The device, as type and device id."
HELP: dict[type[models.Model], Mapping[str, str]] = {
    Credentials: {
        "password_expires_at": "From this time on its password is refused. Empty: it does not expire.",
        "credentials_changed_at": "The last change of its credentials; tokens issued before are refused.",
        "previous_valid_until": "Until this time the previous password is accepted too.",
    },
    BaseDevice: {
        "device_id": "1 to 128 letters, digits, _ : and -. It is part of its topics, and cannot be changed later.",
        "name": "A name for people; pages show it beside the id.",
        "site": "The place of the device. People can be limited to sites.",
        "status": "Maintenance and provisioning are your choice and stay until you end them.",
        "battery_level": "The last battery level that the device reported.",
        "last_seen": "The time of its last message.",
        "firmware_version": "The firmware that the device reported.",
        "is_active": "A device that is not active cannot log in, and its messages go to the quarantine.",
        "mqtt_username": "The username with which it logs in at the broker; its credentials bring it.",
        "mqtt_client_id": "The client id that it must use, if it is not its username or device id.",
        "metadata": "Anything else worth knowing. Numbers, true, false and JSON are kept as such; quotes make a text.",
        "created_at": "The time when it was added.",
        "updated_at": "The last change of this row, by you or by a message.",
        "connected": "Whether the last message, or silence, says that it is connected.",
        "connected_changed_at": "The time since when it is connected, or is not.",
        "last_message_at": "The time of the last message that shows whether it is connected.",
        "last_reading_at": "The time of its latest reading.",
        "reported_status": "The last status that the device itself reported.",
        "reported_times": "The time of the last report, for each value of the device.",
    },
    BaseReading: {
        "device": "The device that measured.",
        "timestamp": "The time of the measurement.",
        "received_at": "The time when it was stored.",
    },
    BaseMessage: {
        "device": "The device that sent it.",
        "topic": "The topic on which it came.",
        "payload_json": "Its content, if it was JSON, CBOR or SenML.",
        "payload_raw": "Its bytes, if they were of no known format.",
        "content_type": "The format that the device named.",
        "correlation_id": "The number that links an answer to its command.",
        "user_properties": "The user properties of MQTT 5.",
        "processing_status": "Whether it was stored.",
        "processing_error": "The reason why it was not stored.",
        "received_at": "The time when it arrived.",
        "processed_at": "The time when it was stored or refused.",
        "outcome": "stored, partial (some values were dropped), failed, duplicate or retained.",
        "notes": "The dropped values, each with the reason.",
    },
    DeviceCommand: {
        "id": "The number of the command; the device repeats it in its answer.",
        "device_key": KEY,
        "name": "The command, as the type declares it.",
        "payload": "Its parameters.",
        "state": "queued, sent, acknowledged by the broker, answered, failed, expired or cancelled.",
        "deadline": "Without an answer by then it expires.",
        "attempts": "How often it was published.",
        "queued_at": "The time when it was requested.",
        "sent_at": "The time when it was published.",
        "acknowledged_at": "The time when the broker had it.",
        "answered_at": "The time when the device answered.",
        "ended_at": "The time when it failed, expired or was cancelled.",
        "error": "The reason why it waits or failed.",
        "response": "The answer of the device.",
    },
    QuarantinedMessage: {
        "reason": "The kind of fault, as a word to filter by.",
        "detail": "The fault in words.",
        "topic": "The topic on which it came.",
        "content_type": "The format that the device named.",
        "correlation_id": "The number that links an answer to its command.",
        "user_properties": "The user properties of MQTT 5.",
        "retain": "Yes: the broker had kept it, and delivered it when the service subscribed.",
        "device_key": KEY,
        "received_at": "The time when it arrived.",
        "replayed_at": "The time when it was replayed; empty if it was not.",
        "dismissed_at": "The time when an operator set it aside; empty if none did.",
        "size": "The bytes that count against the space of its device here: the message, and 1024 for its row.",
    },
    CountedRefusal: {
        "device_key": KEY,
        "reason": "The kind of fault.",
        "count": "Messages that were refused and not kept, since the space of the device was full.",
        "first_at": "The first of them.",
        "last_at": "The last of them.",
    },
    IngestWorker: {
        "client_id": "The client id of the worker at the broker.",
        "group": "The group that shares one subscription; empty for a worker that is alone.",
        "heard_since": "It has stored all messages from this time on.",
        "heard_until": "It has stored all messages up to this time.",
    },
    RetainedTopic: {
        "topic": "The topic whose retained message is to be cleared at the broker.",
        "requested_at": "The time when its device was removed or disabled.",
        "next_at": "The time of the next attempt.",
        "attempts": "Attempts so far.",
        "error": "The reason why the last attempt failed.",
    },
    RemovalRequest: {
        "device_key": KEY,
        "requested_at": "The time of the request; a worker deletes its rows in portions.",
    },
    Denial: {
        "dialect": "The kind of broker that asked.",
        "broker": "The broker that asked.",
        "username": "The username that the client sent.",
        "client_id": "The client id that the client sent.",
        "principal": "The device or account that has this username.",
        "action": "The action that was refused.",
        "topic": "The topic of the request.",
        "reason": "The reason as a word to filter by.",
        "rule": "The rule that decided.",
        "count": "How often it was refused.",
        "first_at": "The first refusal.",
        "last_at": "The last refusal.",
        "dismissed_at": "The time when an operator set it aside.",
    },
    Grant: {
        "effect": "An allow must cover the whole request; a deny refuses all that overlaps it, and wins.",
        "actions": "The actions to which it applies.",
        "filter": "A topic filter; + stands for one level and # for all that follow.",
        "note": "The purpose, for the next reader.",
        "valid_from": "It applies from this time on. Empty: at once.",
        "valid_until": "It ends at this time. Empty: it does not end.",
        "created_at": "The time when it was made.",
    },
    Broker: {
        "name": "A name for people.",
        "is_active": "A broker that is not active gets no answer, so none of its clients can log in.",
        "dialects": "Whose questions it may ask. None checked: those of all MQTT brokers.",
        "networks": "The networks it may ask from, one per line, such as 10.0.0.0/8. Empty: from anywhere.",
        "created_at": "The time when it was made.",
        "previous_token_until": "Until this time the previous token is accepted too.",
        "token_changed_at": "The last change of its token.",
    },
    Account: {
        "username": "The username with which the service logs in; it cannot be changed later.",
        "is_active": "An account that is not active cannot log in.",
        "created_at": "The time when it was made.",
    },
    AuditEntry: {
        "at": "The time of the change.",
        "actor_kind": "The kind of its author.",
        "actor": "The author of the change.",
        "address": "The address from which it was made.",
        "action": "The change.",
        "object_key": "The object that was changed.",
        "before": "The values before it, without secrets.",
        "after": "The values after it, without secrets.",
        "reason": "The reason that the author typed.",
    },
    DeviceGroup: {
        "slug": "The name in grants, in small letters, such as north-hall.",
        "name": "A name for people.",
        "note": "The purpose, for the next reader.",
        "types": "The types of its devices. None checked: all.",
        "sites": "The sites of its devices. None checked: all.",
        "tags": "The tags of its devices, one per line. Empty: any.",
        "created_at": "The time when it was made.",
    },
    GroupMember: {"device_key": KEY, "group": "The group to which it belongs."},
    DeviceTag: {"device_key": KEY, "tag": "A free word."},
    DeviceOptions: {"device_key": KEY},
    SiteScope: {"user": "The limited user.", "sites": "The sites that the user may see."},
    User: {
        "first_name": "Shown on pages instead of the username.",
        "last_name": "Shown after the first name.",
        "email": "For messages about the account, such as a new password.",
        "last_login": "The time of the last sign-in.",
        "date_joined": "The time when the user was added.",
        "user_permissions": "Rights beside those of the role.",
        "groups": "Each group adds its rights.",
    },
    Group: {"name": "A name for people.", "permissions": "The rights of everybody in it."},
}

# The labels of columns whose name Django would not write as people do.
LABELS = {
    "device_id": "Device id",
    "device_key": "Device",
    "id": "Number",
    "is_active": "Active",
    "mqtt_client_id": "MQTT client id",
    "mqtt_username": "MQTT username",
    "payload_json": "Payload as JSON",
}


def register(model: type[models.Model], texts: Mapping[str, str]) -> None:
    """Add the help texts of the columns of *model*, by name, for an app with admin pages of its own."""
    HELP[model] = texts


def label(field: models.Field[Any, Any]) -> str:
    """Return the label of the column *field*, for people."""
    return LABELS.get(field.name) or capfirst(str(field.verbose_name))


def labels_of_times(model: type[models.Model]) -> dict[str, str]:
    """Return the label of each column of times of *model*, with the time zone of the pages, such as UTC."""
    zone = timezone.get_current_timezone_name()
    times = [field for field in model._meta.concrete_fields if isinstance(field, models.DateTimeField)]
    return {field.name: f"{label(field)}, in {zone}" for field in times}


def in_a_sentence(name: str) -> str:
    """Return the *name* of a model without the capitals of a title.

    >>> in_a_sentence("Weather Stations"), in_a_sentence("LwM2M endpoints")
    ('weather stations', 'LwM2M endpoints')
    """
    return " ".join(word.lower() if word.istitle() else word for word in name.split(" "))


def help_texts(model: type[models.Model]) -> dict[str, str]:
    """Return the help text of each column of *model* that has none in the model."""
    found = _declared(model)
    for base in reversed(model.__mro__):
        found |= HELP.get(base, {})
    without = {f.name for f in model._meta.get_fields() if not getattr(f, "help_text", "")}
    return {name: text for name, text in found.items() if name in without or name in _units(model)}


def _declared(model: type[Any]) -> dict[str, str]:
    """Return the texts of the values that a type of device declares."""
    for kind in registry:
        if issubclass(model, kind.device_model):
            return dict.fromkeys(kind.state_fields, "The device reports it.")
    return _units(model)


def _units(model: type[Any]) -> dict[str, str]:
    for kind in registry:
        if model in kind.value_models:
            return {
                name: f"A measured value in {reading.unit}." if reading.unit else "A measured value."
                for name, reading in kind.readings.items()
            }
    return {}
