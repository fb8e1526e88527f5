"""The pages of devices."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError, RestrictedError
from django.forms import ModelForm
from django.http import HttpRequest

from devicehub import provisioning, removal
from devicehub.admin.base import ModelAdmin, Panel
from devicehub.kinds.identifiers import is_client_id
from devicehub.models import NAMES
from devicehub.removal import requests

SHOWN_DEVICES = 100  # The confirmation page of a deletion lists at most this many.
GOES_LATER = "; disabled at once, then removed in the background"
SHOWN = ("mqtt_username", "last_seen", "battery_level", "firmware_version", "created_at", "updated_at")


class DeviceForm(ModelForm):  # type: ignore[type-arg]
    """The form of a device. It refuses names of another identity, since a shared name locks both identities out."""

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        device, given = self.instance, self.cleaned_data
        # Only changed names are checked: a device that already has a wrong name can still be disabled.
        new = [given[n] for n in NAMES if n in given and n in self.changed_data]
        try:
            provisioning.refuse_taken([n for n in new if n], but=device if device.pk else None)
        except provisioning.IdentityTaken as error:
            raise ValidationError(str(error)) from error
        return cleaned

    def clean_mqtt_client_id(self) -> str | None:
        """Return the client id, or None if it is empty: the column is unique, and allows NULL more than once."""
        client_id: str | None = self.cleaned_data["mqtt_client_id"] or None
        if client_id is not None and not is_client_id(client_id):
            raise ValidationError("Use 1-128 characters, without +, # and control characters.")
        return client_id


class DeviceAdmin(ModelAdmin):
    form = DeviceForm
    panels: ClassVar[list[Panel]] = []
    pairs = ("metadata",)
    list_display = ("device_id", "name", "status", "is_active", "site", "last_seen")
    list_filter = ("status", "is_active", "site")
    search_fields = ("device_id", "name", "mqtt_username")
    show_full_result_count = False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*SHOWN, "device_id") if obj else SHOWN

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the fields of the form; the expiry of the password follows the client id."""
        fields = list(super().get_fields(request, obj))
        if not self.fields and {"mqtt_client_id", "password_expires_at"} <= set(fields):
            fields.remove("password_expires_at")
            fields.insert(fields.index("mqtt_client_id") + 1, "password_expires_at")
        return fields

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save a device. Enabling it also cancels a requested removal."""
        super().save_model(request, obj, form, change)
        if change and obj.is_active and "is_active" in form.changed_data:
            provisioning.enable(obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], list[Any]]:
        """Return the content of the confirmation page: each device, with the numbers of rows to be deleted.

        The method of Django would load every row of the devices.
        """
        devices = list(objs)
        going = "" if _have_few_rows(devices) else GOES_LATER
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
        """Delete a device. If it has many rows, disable it now, and let a worker remove it."""
        self._delete(request, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete devices. If they have many rows together, disable them now, and let a worker remove them."""
        self._delete(request, list(queryset))

    def _delete(self, request: HttpRequest, devices: list[Any]) -> None:
        if _have_few_rows(devices):
            with transaction.atomic():
                for device in devices:
                    device.delete()
            return
        removal.request_all(devices)
        which = devices[0].device_id if len(devices) == 1 else f"{len(devices):,} devices"
        verb = "is" if len(devices) == 1 else "are"
        self.message_user(request, f"{which} {verb} disabled and being removed.", messages.WARNING)


def _have_few_rows(devices: list[Any]) -> bool:
    """Return whether *devices* together have few enough rows for deletion in a web request."""
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
    """Return as text the rows of a project that prevent the deletion of *devices*."""
    try:
        removal.check_deletable(devices)
    except ProtectedError as error:
        return sorted(map(str, error.protected_objects))
    except RestrictedError as error:
        return sorted(map(str, error.restricted_objects))
    return []
