"""The abstract model of a device, its states and its query set."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Protocol

from django.db import connections, models, transaction
from django.utils import timezone

from authsvc.core import passwords
from authsvc.credentials import Credentials
from authsvc.models import UsernameField
from authsvc.secret_columns import SecretField
from devicehub.db import clock
from devicehub.db.portions import batched
from devicehub.kinds import identifiers
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
    """Tell BaseDevice.send_command() who sends; the app does it when it is ready."""
    global _command_sender
    _command_sender = sender


class Watcher(Protocol):
    """Who is told when devices begin and end: `devicehub.removal`, registered when the app is ready."""

    def named(self, model: type[BaseDevice], device_ids: set[str], names: set[str], using: str) -> None:
        """Devices get *device_ids*, and *names* as usernames and client ids. Raise what refuses these names.

        Called in the transaction that writes them.
        """

    def ended(self, model: type[BaseDevice], device_ids: Iterable[str]) -> None:
        """These devices are not active any more; called in the transaction that says so."""

    def asked(self, device: BaseDevice) -> None:
        """Raise what refuses the deletion of *device*, before anything of it is gone. Called outside a transaction."""

    def emptied(self, device: BaseDevice) -> None:
        """*device* is about to be deleted: take away what there is much of. Called outside a transaction."""


_watcher: Watcher | None = None


def register_watcher(watcher: Watcher) -> None:
    global _watcher
    _watcher = watcher


class DeviceQuerySet(models.QuerySet["BaseDevice"]):
    """Tells of the devices that begin, get another id or are disabled, and deletes much in small portions."""

    def bulk_create(self, objs: Iterable[BaseDevice], *args: Any, **options: Any) -> list[BaseDevice]:
        """As every query set; names that are new are told first, in the same transaction."""
        devices = list(objs)
        if _watcher is None:
            return super().bulk_create(devices, *args, **options)
        self._for_write = True
        with transaction.atomic(using=self.db):
            for some in batched(devices, 200):
                _watcher.named(self.model, *new_names(self.model, some, self.db), self.db)
            return super().bulk_create(devices, *args, **options)

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def update(self, **changes: Any) -> int:
        renames, disables = not changes.keys().isdisjoint(NAMES), changes.get("is_active", True) is not True
        if _watcher is None or not (renames or disables):
            return super().update(**changes)
        self._for_write = True
        with transaction.atomic(using=self.db):
            chosen = self.order_by() if renames else self.order_by().filter(is_active=True)
            before = {row[0]: row[1:] for row in chosen.values_list("pk", "is_active", *NAMES)}
            changed = super().update(**changes)
            rows = self.model._base_manager.using(self.db).order_by()
            for some in batched(before, 200):
                now = list(rows.filter(pk__in=some).values_list("pk", "is_active", *NAMES))
                ids = {row[2] for row in now if row[2] != before[row[0]][1]}
                known = {name for pk in some for name in before[pk][1:]}
                names_now = {name for _, _, *found in now for name in found if name}
                _watcher.named(self.model, ids, names_now - known, self.db)
                ended = [before[pk][1] for pk, active, *_ in now if before[pk][0] and not active]
                _watcher.ended(self.model, ended)
        return changed

    update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """As every query set, of the devices that it finds now. Outside a transaction it goes by portions of them."""
        refused = self.query.is_sliced or self.query.distinct_fields or self.query.combinator
        chosen = self._chain()  # type: ignore[attr-defined]
        chosen._for_write = True
        if (
            _watcher is None
            or refused  # by Django, in its own words
            or self._fields is not None  # type: ignore[attr-defined]
            or connections[chosen.db].in_atomic_block
        ):
            return super().delete()
        # By primary key from here on: disabling a device changes which ones the filter finds.
        pks = list(chosen.order_by("pk").values_list("pk", flat=True))
        devices = self.model._base_manager.using(chosen.db).order_by("pk")
        for some in batched(pks, 100):  # no cursor is open meanwhile
            for device in list(devices.filter(pk__in=some)):
                _watcher.asked(device)
        counts: Counter[str] = Counter()
        for some in batched(pks, 100):
            for device in list(devices.filter(pk__in=some)):
                _watcher.emptied(device)
            counts.update(devices.filter(pk__in=some).delete()[1])
        self._result_cache = None
        return counts.total(), dict(counts)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


# The columns by which a device is known and may connect. Each has an index of its own.
NAMES = ("device_id", "mqtt_username", "mqtt_client_id")


def new_names(
    model: type[BaseDevice], devices: Iterable[BaseDevice], using: str
) -> tuple[set[str], set[str]]:
    """Return the device ids that no device has yet, and the names that the rows of *devices* do not have yet.

    A value that no database could hold is not asked for: the save that follows refuses it.
    """
    given = [tuple(getattr(device, name) for name in NAMES) for device in devices]
    ids = {row[0] for row in given if identifiers.is_text(row[0])}
    own = models.Q(device_id__in=ids) | models.Q(pk__in=[device.pk for device in devices if device.pk])
    rows = model._base_manager.using(using).filter(own).order_by().values_list(*NAMES)
    known = list(rows)
    names = {name for row in given for name in row if name and identifiers.is_text(name)}
    return ids - {row[0] for row in known}, names - {name for row in known for name in row}


class BaseDevice(Credentials):
    """One device: who it is, how it logs in, and how it is. Concrete models come from create_models().

    *api_key* holds the SHA-256 of the key, never the key. *mqtt_password_hash* is of a generated secret.
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
    connected_changed_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_message_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_reading_at = models.DateTimeField(null=True, blank=True, editable=False)
    reported_status = models.CharField(max_length=20, blank=True, editable=False)
    reported_times = models.JSONField(null=True, blank=True, editable=False)  # of receipt, by column reported
    site = models.CharField(max_length=100, blank=True)

    objects = DeviceQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name or self.device_id} ({self.status})"

    def save(self, *args: Any, **options: Any) -> None:
        """As every model; what comes of a device that begins or is disabled is done in the same transaction."""
        if _watcher is None or (self.is_active and not self._state.adding):
            super().save(*args, **options)
            return
        with transaction.atomic(using=options.get("using") or self._state.db):
            rows = type(self)._base_manager.using(options.get("using") or self._state.db).filter(pk=self.pk)
            was_active = not self._state.adding and rows.filter(is_active=True).exists()
            super().save(*args, **options)
            if was_active and not rows.filter(is_active=True).exists():
                _watcher.ended(type(self), [self.device_id])

    def delete(self, using: Any = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """As every model. Outside a transaction it is disabled first, and its rows go in small portions."""
        if (
            _watcher is not None
            and self.pk
            and not connections[using or self._state.db or "default"].in_atomic_block
        ):
            _watcher.asked(self)
            _watcher.emptied(self)
        return super().delete(using, keep_parents)

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
        """Whether *raw* is the current MQTT password. False for an unusable hash."""
        try:
            return passwords.verify(raw, self.mqtt_password_hash)
        except passwords.UnusableHash:
            return False

    def mark_online(self) -> None:
        self.status = DeviceStatus.ONLINE
        self.last_seen = timezone.now()
        self.save(update_fields=["status", "last_seen", "updated_at"])

    def mark_offline(self) -> None:
        self.status = DeviceStatus.OFFLINE
        self.save(update_fields=["status", "updated_at"])

    def is_heartbeat_overdue(self, heartbeat_interval: float = 300, multiplier: float = 2.5) -> bool:
        """Whether nothing was heard for *heartbeat_interval* seconds times *multiplier*, or ever."""
        now = timezone.now()
        seen = clock.known(self.last_seen, now)
        return seen is None or seen < now - timedelta(seconds=heartbeat_interval * multiplier)

    def send_command(
        self, name: str, payload: dict[str, Any] | None = None, broker_name: str = "default"
    ) -> str:
        """Queue the command and publish it to the device's `cmd` topic once this transaction commits.

        Returns its id; how far it came is in its DeviceCommand row. ValueError: no DeviceType, unknown command
        or broker, a parameter missing or unknown. TypeError: a parameter of a wrong type. CommandNotSent: the
        device is disabled.
        """
        self.check_command(name, payload)
        if _command_sender is None:
            raise RuntimeError("Nobody sends commands: put devicehub into INSTALLED_APPS")
        return _command_sender(self, name, dict(payload or {}), broker_name)

    def check_command(self, name: str, payload: dict[str, Any] | None) -> None:
        """Raise what send_command() raises for a command that this device's type does not declare so."""
        kind = registry.of(self)
        if kind is None:
            raise ValueError(
                f"{type(self).__name__} is not a registered kind of device, so it has no commands"
            )
        command = kind.commands.get(name)
        if command is None:
            raise ValueError(f"{kind.sender.__name__} has no command {name!r}")
        command.validate_payload(payload)


def digest_api_key(key: str) -> str:
    """What is stored of an API key, and looked up by."""
    return hashlib.sha256(key.encode()).hexdigest()
