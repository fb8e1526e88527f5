"""The pages of devices."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError, RestrictedError
from django.forms import ModelForm
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from authsvc.secret_columns import HidesSecrets
from devicehub import provisioning, removal
from devicehub.kinds.identifiers import is_client_id
from devicehub.models import NAMES

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

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], list[Any]]:
        """What the page that asks shows: counts, since Django would load every row of the device."""
        shown, total = [], 0
        kept: list[Any] = []
        for device in objs:
            try:
                removal.collect(device)
            except ProtectedError as error:
                kept += map(str, error.protected_objects)
            except RestrictedError as error:
                kept += map(str, error.restricted_objects)
            rows = removal.row_counts(device)
            named = (
                f"{text} {name.removesuffix('s') if text == '1' else name}" for name, text in rows.items()
            )
            shown.append(f"{device}: {', '.join(named)}")
            total += 1
        allowed = self.has_delete_permission(request)
        name = str(self.model._meta.verbose_name)
        return shown, {str(self.model._meta.verbose_name_plural): total}, set() if allowed else {name}, kept

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """A device with many rows is disabled now, and goes in small portions."""
        if not removal.has_many_rows(obj):
            obj.delete()
            return
        removal.request(obj)
        messages.warning(request, f"{obj.device_id} is disabled and being removed; it has many rows.")

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for device in queryset:
            self.delete_model(request, device)
