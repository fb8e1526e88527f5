"""The admin of every registered kind and of what all kinds share. No secret and no hash is ever shown."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError, QuerySet, RestrictedError
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import ModelAdmin

from authsvc.secret_columns import HidesSecrets
from devicehub import commands, provisioning, removal
from devicehub.commands import description
from devicehub.kinds.identifiers import is_client_id
from devicehub.kinds.registry import Kind, registry
from devicehub.models import (
    NAMES,
    BaseMessage,
    CountedRefusal,
    DeviceCommand,
    IngestWorker,
    QuarantinedMessage,
    RemovalRequest,
    RetainedTopic,
)

SHOWN_BYTES = 2000  # of a quarantined payload
STEPS = ("queued_at", "sent_at", "acknowledged_at", "answered_at", "ended_at")  # of a command
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


class RecordAdmin(HidesSecrets, ModelAdmin):  # type: ignore[misc]
    """What the system wrote: to read, not to change."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadingAdmin(RecordAdmin):
    list_select_related = ("device",)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        own = [f.name for f in self.model._meta.fields if f.name not in ("id", "device", "received_at")]
        return ("device", *own)


class MessageAdmin(RecordAdmin):
    list_display = ("received_at", "device", "topic", "outcome", "processing_error")
    list_filter = ("outcome",)
    list_select_related = ("device",)
    readonly_fields = ("in_quarantine",)

    @admin.display(description="Payload in the quarantine")
    def in_quarantine(self, message: BaseMessage) -> str:
        """The beginning of the bytes of a failed message, and where the whole row is."""
        row = message.quarantined
        if row is None:
            return "-"
        url = reverse("admin:devicehub_quarantinedmessage_change", args=[row.pk])
        return format_html('<a href="{}">{}</a>: {}', url, row.pk, _shown(row.payload))


@admin.register(QuarantinedMessage)
class QuarantineAdmin(RecordAdmin):
    list_display = ("received_at", "id", "reason", "topic", "device_key", "detail")
    list_filter = ("reason",)
    search_fields = ("=id", "topic", "device_key")
    readonly_fields = ("payload_as_sent", "size")

    @admin.display(description="Payload")
    def payload_as_sent(self, row: QuarantinedMessage) -> str:
        return _shown(row.payload)


def _shown(payload: bytes | memoryview) -> str:
    """Return the beginning of *payload*: as text where it is one, else in hexadecimal digits."""
    beginning = bytes(payload)[:SHOWN_BYTES]
    more = f" ... ({len(payload):,} bytes)" if len(payload) > SHOWN_BYTES else ""
    try:
        text = beginning.decode()
    except UnicodeDecodeError:
        text = beginning.hex(" ")
    return (text if text.isprintable() else beginning.hex(" ")) + more if text else "(empty)"


@admin.register(CountedRefusal)
class CountedRefusalAdmin(RecordAdmin):
    list_display = ("last_at", "device_key", "reason", "count", "first_at")
    list_filter = ("reason",)
    search_fields = ("device_key",)


@admin.register(DeviceCommand)
class DeviceCommandAdmin(RecordAdmin):
    list_display = ("queued_at", "device_key", "name", "state", "attempts", "deadline", "why")
    list_filter = ("state", "name")
    search_fields = ("=id", "device_key")
    fieldsets = (
        (None, {"fields": ("id", "device_key", "name", "payload")}),
        ("How far it came", {"fields": ("state", "why", "attempts", "next_attempt", "deadline", *STEPS)}),
        ("Answer", {"fields": ("result", "response")}),
    )
    actions = ("cancel",)
    change_form_outer_before_template = "devicehub/_cancel.html"

    @admin.display(description="Why")
    def why(self, command: DeviceCommand) -> str:
        return description.reason(command)

    @admin.display(description="Next attempt")
    def next_attempt(self, command: DeviceCommand) -> datetime | None:
        """None for what is looked at again at its deadline only, to end it."""
        return command.due_at if command.due_at != command.deadline else None

    @admin.display(description="Result")
    def result(self, command: DeviceCommand) -> str:
        return "" if command.result is None else json.dumps(command.result, ensure_ascii=False)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        context = {**(extra_context or {}), "may_cancel": self.has_cancel_permission(request)}
        answer: HttpResponse = super().change_view(request, object_id, form_url, context)
        return answer

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("devicehub.change_devicecommand"))

    @admin.action(description="Cancel selected commands", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[DeviceCommand]) -> None:
        """Those that are still queued; of the others it says how many."""
        chosen = list(queryset)
        cancelled = sum(commands.cancel(command) for command in chosen)
        self.message_user(request, f"{cancelled} cancelled.")
        if cancelled < len(chosen):
            late = (
                f"{left} were over, on their way or may have arrived, and stay as they are."
                if (left := len(chosen) - cancelled) > 1
                else "1 was over, on its way or may have arrived, and stays as it is."
            )
            self.message_user(request, late, messages.WARNING)


@admin.register(IngestWorker)
class IngestWorkerAdmin(RecordAdmin):
    list_display = ("client_id", "group", "heard_since", "heard_until")


@admin.register(RetainedTopic)
class RetainedTopicAdmin(RecordAdmin):
    list_display = ("topic", "requested_at", "attempts", "next_at", "error")


@admin.register(RemovalRequest)
class RemovalRequestAdmin(RecordAdmin):
    list_display = ("device_key", "requested_at")


def register(kind: Kind) -> None:
    """The three models of *kind*, unless the project registered its own admin for them."""
    for model, model_admin in (
        (kind.device_model, DeviceAdmin),
        (kind.reading_model, ReadingAdmin),
        (kind.message_model, MessageAdmin),
    ):
        if not admin.site.is_registered(model):
            admin.site.register(model, model_admin)


for _kind in registry:  # Django imports this module when every app's models, and so every kind, exist
    register(_kind)
