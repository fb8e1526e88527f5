"""The pages of devices."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError, RestrictedError
from django.forms import ModelForm
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from authsvc.secret_columns import HidesSecrets
from devicehub import provisioning, removal
from devicehub.kinds.identifiers import is_client_id
from devicehub.models import NAMES
from devicehub.removal import requests

SHOWN_DEVICES = 100  # that the page before a deletion lists
GOES_LATER = "; disabled at once, and removed in the background"
SHOWN = ("mqtt_username", "last_seen", "battery_level", "firmware_version", "created_at", "updated_at")


class DeviceForm(ModelForm):  # type: ignore[type-arg]
    """Refuses names of another identity, which would shut both out."""

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        device, given = self.instance, self.cleaned_data
        # Only what changes: a device that has a wrong name already must still be disabled.
        new = [given[n] for n in NAMES if n in given and n in self.changed_data]
        try:
            provisioning.refuse_taken([n for n in new if n], but=device if device.pk else None)
        except provisioning.IdentityTaken as error:
            raise ValidationError(str(error)) from error
        return cleaned

    def clean_mqtt_client_id(self) -> str | None:
        """Return the client id, or None for an empty one: it is unique, and a second empty one would not be."""
        client_id: str | None = self.cleaned_data["mqtt_client_id"] or None
        if client_id is not None and not is_client_id(client_id):
            raise ValidationError("Use 1-128 characters, none of them +, # or a control character.")
        return client_id


class DeviceAdmin(HidesSecrets, ModelAdmin):  # type: ignore[misc]
    form = DeviceForm
    list_display = ("device_id", "name", "status", "is_active", "site", "last_seen")
    list_filter = ("status", "is_active", "site")
    search_fields = ("device_id", "name", "mqtt_username")
    show_full_result_count = False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*SHOWN, "device_id") if obj else SHOWN

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the fields of the form, with the expiry of the password behind the client id."""
        fields = list(super().get_fields(request, obj))
        if not self.fields and {"mqtt_client_id", "password_expires_at"} <= set(fields):
            fields.remove("password_expires_at")
            fields.insert(fields.index("mqtt_client_id") + 1, "password_expires_at")
        return fields

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save a device; one that is enabled is also kept from a removal that was requested."""
        super().save_model(request, obj, form, change)
        if change and obj.is_active and "is_active" in form.changed_data:
            provisioning.enable(obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], list[Any]]:
        """Return what the page that asks shows: what becomes of each device, with counts.

        Django would load every row of the devices.
        """
        devices = list(objs)
        going = "" if _few_by_few(devices) else GOES_LATER
        shown = [f"{device}: {_rows_in_words(device)}{going}" for device in devices[:SHOWN_DEVICES]]
        if len(devices) > SHOWN_DEVICES:
            shown.append(f"{len(devices) - SHOWN_DEVICES:,} more{going}")
        meta = self.model._meta
        allowed = self.has_delete_permission(request)
        return (
            shown,
            {str(meta.verbose_name_plural): len(devices)},
            set() if allowed else {str(meta.verbose_name)},
            _keepers(devices),
        )

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete a device; one with many rows is disabled now, and a worker removes it."""
        self._delete(request, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete devices; together with many rows they are disabled now, and a worker removes them."""
        self._delete(request, list(queryset))

    def _delete(self, request: HttpRequest, devices: list[Any]) -> None:
        if _few_by_few(devices):
            with transaction.atomic():
                for device in devices:
                    device.delete()
            return
        removal.request_all(devices)
        which = devices[0].device_id if len(devices) == 1 else f"{len(devices):,} devices"
        verb = "is" if len(devices) == 1 else "are"
        self.message_user(request, f"{which} {verb} disabled and being removed.", messages.WARNING)


def _few_by_few(devices: list[Any]) -> bool:
    """Return whether *devices* have so few rows together that a web request can delete them."""
    left = requests.FEW
    for device in devices:
        left -= 1 + sum(removal.count_rows(device).values())
        if left < 0:
            return False
    return True


def _rows_in_words(device: Any) -> str:
    named = []
    for name, count in removal.count_rows(device).items():
        number = f"more than {requests.FEW:,}" if count > requests.FEW else str(count)
        named.append(f"{number} {name.removesuffix('s') if count == 1 else name}")
    return ", ".join(named)


def _keepers(devices: list[Any]) -> list[str]:
    """Return the rows of a project that keep *devices* from being deleted, as text."""
    try:
        removal.check_deletable(devices)
    except ProtectedError as error:
        return sorted(map(str, error.protected_objects))
    except RestrictedError as error:
        return sorted(map(str, error.restricted_objects))
    return []
