"""The abstract model of a device, its states and its query set."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import Any

from django.db import models, transaction
from django.utils import timezone

from authsvc.core import passwords
from authsvc.credentials import Credentials
from authsvc.models import UsernameField
from authsvc.secret_columns import SecretField
from devicehub.db import clock
from devicehub.db.portions import batched
from devicehub.kinds import identifiers
from devicehub.kinds.declare import InvalidCommand
from devicehub.kinds.registry import registry
from devicehub.models.fields import DeviceIdField, validate_device_id


class DeviceStatus(models.TextChoices):
    ONLINE = "online", "Online"
    OFFLINE = "offline", "Offline"
    ERROR = "error", "Error"
    MAINTENANCE = "maintenance", "Maintenance"
    LOW_BATTERY = "low_battery", "Low Battery"
    PROVISIONING = "provisioning", "Provisioning"


# An operator sets these; a device cannot report them, and what it reports does not end them.
OPERATOR_STATES = frozenset({DeviceStatus.MAINTENANCE, DeviceStatus.PROVISIONING})


CommandSender = Callable[["BaseDevice", str, dict[str, Any], str], str]


_command_sender: CommandSender | None = None


def register_command_sender(sender: CommandSender) -> None:
    """Set the function with which BaseDevice.send_command() sends. The app calls this when it is ready."""
    global _command_sender
    _command_sender = sender


Naming = Callable[["type[BaseDevice]", set[str], set[str], str], None]


_naming: Naming | None = None


def register_naming(check: Naming) -> None:
    """Have *check* called with the model, new device ids, new usernames and client ids, and the database.

    It is called in the transaction that writes these names, and raises an error to refuse them.
    """
    global _naming
    _naming = check


Placing = Callable[["type[BaseDevice]", Collection[str], str], None]


_placing: Placing | None = None


def register_placing(follow: Placing) -> None:
    """Have *follow* called with the model, the ids of devices that were created or got a site, and the database.

    It is called in the transaction of the change, after it.
    """
    global _placing
    _placing = follow


PLACED = frozenset({"site", "device_id"})  # Columns by which a group selects devices.


class DeviceQuerySet(models.QuerySet["BaseDevice"]):
    """A query set that checks new names of devices, and places them, in the transaction that writes them."""

    def bulk_create(self, objs: Iterable[BaseDevice], *args: Any, **options: Any) -> list[BaseDevice]:
        """Create *objs* as any query set does, after a check of the names that are new."""
        devices = list(objs)
        if _naming is None:
            return super().bulk_create(devices, *args, **options)
        self._for_write = True
        with transaction.atomic(using=self.db):
            for some in batched(devices, 200):
                _naming(self.model, *new_names(self.model, some, self.db), self.db)
            created = super().bulk_create(devices, *args, **options)
            if _placing is not None:
                _placing(self.model, [device.device_id for device in devices], self.db)
            return created

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def update(self, **changes: Any) -> int:
        """Update as any query set does, with a check of the names that are new in the same transaction."""
        if _placing is not None and not PLACED.isdisjoint(changes):
            return self._update_placed(changes)
        return self._update_named(changes)

    def _update_placed(self, changes: dict[str, Any]) -> int:
        self._for_write = True
        with transaction.atomic(using=self.db):
            pks = list(self.order_by().values_list("pk", flat=True))
            changed = self._update_named(changes)
            rows = self.model._base_manager.using(self.db).order_by()
            for some in batched(pks, 200):
                ids = list(rows.filter(pk__in=some).values_list("device_id", flat=True))
                if _placing is not None:
                    _placing(self.model, ids, self.db)
        return changed

    def _update_named(self, changes: dict[str, Any]) -> int:
        if _naming is None or changes.keys().isdisjoint(NAMES):
            return super().update(**changes)
        self._for_write = True
        with transaction.atomic(using=self.db):
            before = {row[0]: row[1:] for row in self.order_by().values_list("pk", *NAMES)}
            changed = super().update(**changes)
            rows = self.model._base_manager.using(self.db).order_by()
            for some in batched(before, 200):
                now = list(rows.filter(pk__in=some).values_list("pk", *NAMES))
                ids = {row[1] for row in now if row[1] != before[row[0]][0]}
                existing = {name for pk in some for name in before[pk]}
                names = {name for _, *found in now for name in found if name}
                _naming(self.model, ids, names - existing, self.db)
        return changed

    update.alters_data = True  # type: ignore[attr-defined]


# The columns that identify a device when it connects. Each has an index of its own.
NAMES = ("device_id", "mqtt_username", "mqtt_client_id")


def new_names(
    model: type[BaseDevice], devices: Iterable[BaseDevice], using: str
) -> tuple[set[str], set[str]]:
    """Return the device ids that no device has yet, and the names that the rows of *devices* do not have yet.

    A value that no database could hold is not queried: the save that follows refuses it.
    """
    given = [tuple(getattr(device, name) for name in NAMES) for device in devices]
    ids = {row[0] for row in given if identifiers.is_text(row[0])}
    own = models.Q(device_id__in=ids) | models.Q(pk__in=[device.pk for device in devices if device.pk])
    rows = model._base_manager.using(using).filter(own).order_by().values_list(*NAMES)
    existing = list(rows)
    names = {name for row in given for name in row if name and identifiers.is_text(name)}
    return ids - {row[0] for row in existing}, names - {name for row in existing for name in row}


class BaseDevice(Credentials):
    """One device: its identity, its credentials and its state. Concrete models come from create_models().

    *api_key* holds the SHA-256 of the key, never the key. *mqtt_password_hash* is the hash of a generated secret.
    """

    HASH_COLUMN = "mqtt_password_hash"

    device_id = DeviceIdField(max_length=128, unique=True, db_index=True, verbose_name="Device ID")
    name = models.CharField(max_length=255, blank=True)
    status = models.CharField(
        max_length=20, choices=DeviceStatus, default=DeviceStatus.OFFLINE, db_index=True
    )
    battery_level = models.FloatField(null=True, blank=True, verbose_name="Battery (%)")
    last_seen = models.DateTimeField(null=True, blank=True)
    firmware_version = models.CharField(max_length=50, blank=True)
    is_active = models.BooleanField(default=True, db_index=True)

    mqtt_username = UsernameField(max_length=128, unique=True, null=True, blank=True)
    mqtt_password_hash = SecretField(max_length=256, blank=True)
    api_key = SecretField(max_length=128, unique=True, null=True, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    mqtt_client_id = models.CharField(max_length=128, unique=True, null=True, blank=True)
    connected = models.BooleanField(default=False, editable=False)
    # Its index is for the stream of events; a message of a connected device does not change it.
    connected_changed_at = models.DateTimeField(null=True, blank=True, editable=False, db_index=True)
    last_message_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_reading_at = models.DateTimeField(null=True, blank=True, editable=False)
    reported_status = models.CharField(max_length=20, blank=True, editable=False)
    reported_times = models.JSONField(null=True, blank=True, editable=False)  # Times of receipt, by column.
    site = models.CharField(max_length=100, blank=True)

    objects = DeviceQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name or self.device_id} ({self.status})"

    def save(self, *args: Any, **options: Any) -> None:
        """Save as any model does; the names of a new device are checked, and it is placed, in the same transaction."""
        fields = options.get("update_fields")
        is_placed = self._state.adding or fields is None or not PLACED.isdisjoint(fields)
        if not is_placed or (_naming is None and _placing is None):
            super().save(*args, **options)
            return
        with transaction.atomic(using=options.get("using") or self._state.db):
            super().save(*args, **options)
            if _placing is not None:
                _placing(type(self), [self.device_id], self._state.db or "default")

    def generate_credentials(self) -> dict[str, str]:
        """Set new MQTT credentials and an API key; return them in clear text, to be shown once. The caller saves."""
        validate_device_id(self.device_id)
        password, api_key = passwords.generate(), secrets.token_hex(32)
        self.mqtt_username = identifiers.mqtt_username(
            self._meta.app_label, str(self._meta.model_name), self.device_id
        )
        self.set_hash(passwords.hash_generated(password))
        self.api_key = digest_api_key(api_key)
        return {"mqtt_username": self.mqtt_username, "mqtt_password": password, "api_key": api_key}

    def check_mqtt_password(self, raw: str) -> bool:
        """Return whether *raw* is the current MQTT password; False for an unusable hash."""
        try:
            return passwords.verify(raw, self.mqtt_password_hash)
        except passwords.UnusableHash:
            return False

    def mark_online(self) -> None:
        """Set the status to online and *last_seen* to now, and save both."""
        self.status = DeviceStatus.ONLINE
        self.last_seen = timezone.now()
        self.save(update_fields=["status", "last_seen", "updated_at"])

    def mark_offline(self) -> None:
        """Set the status to offline and save it."""
        self.status = DeviceStatus.OFFLINE
        self.save(update_fields=["status", "updated_at"])

    def is_heartbeat_overdue(self, heartbeat_interval: float = 300, multiplier: float = 2.5) -> bool:
        """Return whether no message came for *heartbeat_interval* seconds times *multiplier*, or none ever."""
        now = timezone.now()
        seen = clock.plausible(self.last_seen, now)
        return seen is None or seen < now - timedelta(seconds=heartbeat_interval * multiplier)

    def send_command(
        self, name: str, payload: dict[str, Any] | None = None, broker_name: str = "default"
    ) -> str:
        """Queue the command and publish it to the device's `cmd` topic once this transaction commits.

        Return its id; its progress is in its DeviceCommand row. Raise ValueError for a kind that is not registered,
        an unknown command or broker, or a missing or unknown parameter; TypeError for a parameter of a wrong type;
        CommandNotSent if the device is disabled.
        """
        self.check_command(name, payload)
        if _command_sender is None:
            raise RuntimeError("Commands cannot be sent: put devicehub into INSTALLED_APPS")
        return _command_sender(self, name, dict(payload or {}), broker_name)

    def check_command(self, name: str, payload: dict[str, Any] | None) -> None:
        """Raise ValueError or TypeError if this device's type does not declare the command with this payload."""
        kind = registry.of(self)
        if kind is None:
            raise ValueError(
                f"{type(self).__name__} is not a registered kind of device, so it has no commands"
            )
        command = kind.commands.get(name)
        if command is None:
            declared = ", ".join(sorted(kind.commands)) or "none"
            text = f"{kind.sender.__name__} has no command {name!r}; its commands: {declared}"
            raise InvalidCommand(text, "name")
        command.validate_payload(payload)


def digest_api_key(key: str) -> str:
    """Return the digest under which an API key is stored and looked up."""
    return hashlib.sha256(key.encode()).hexdigest()
