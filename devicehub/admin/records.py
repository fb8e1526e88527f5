"""The pages of records that the system writes: readings, messages, the quarantine and the worker's own rows."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join, strip_tags

from devicehub.admin import cells, texts
from devicehub.admin.base import EvidenceAdmin, Panel
from devicehub.admin.dismissing import DismissedFilter, Dismisses, acts_panel
from devicehub.admin.lists import BoundedPaginator, ChoiceFilter, DeviceFilter, lately
from devicehub.admin.replaying import Replays
from devicehub.kinds.registry import registry
from devicehub.kinds.units import unit
from devicehub.models import (
    BaseMessage,
    CountedRefusal,
    IngestWorker,
    QuarantinedMessage,
    RemovalRequest,
    RetainedTopic,
)

SHOWN_BYTES = 2000  # A longer quarantined payload is cut.
OUTCOMES = {
    "stored": ("done", "good", "Stored"),
    "partial": ("part", "warn", "Partly stored"),
    "failed": ("error", "bad", "Failed"),
    "duplicate": ("wait", "off", "Duplicate"),
    "retained": ("wait", "off", "Retained"),
}


def _or_empty(shown: str) -> str:
    """Return *shown*, the markup of user properties in unfold, once for each theme, or the mark of an empty value."""
    return cells.EMPTY if set(strip_tags(shown).split()) == {"{}"} else shown


PREPROCESSED = {"user_properties": _or_empty}


class OfDeviceAdmin(EvidenceAdmin):
    """Rows with a foreign key to a device, newest first."""

    belongs_to = "device"
    paginator = BoundedPaginator
    search_fields: ClassVar[tuple[str, ...]] = ("^device__device_id",)
    search_help_text = "The beginning of a device id"
    list_select_related: ClassVar[tuple[str, ...]] = ("device",)

    def noun(self, count: int = 1) -> str:
        """Return the word for *count* rows. The name of a type has the case of a title."""
        return texts.in_a_sentence(super().noun(count))

    def get_views(self, request: HttpRequest) -> list[tuple[str, str, bool]]:
        """Return the lists of the same rows of each kind, if there are several."""
        place = "message_model" if issubclass(self.model, BaseMessage) else "reading_model"
        models = [(kind.name, getattr(kind, place)) for kind in registry]
        found = [
            (name, url, model is self.model)
            for name, model in models
            if model is not None and (url := cells.list_url(model))
        ]
        return found if len(found) > 1 else []

    @admin.display(description="Device", ordering="device__device_id")
    def of_device(self, row: Any) -> str:
        """Return a link to the device of *row*. Its id stands alone: the state of today says nothing about the row."""
        meta = row.device._meta
        url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.device_id])
        return format_html('<a class="dh-id" href="{}">{}</a>', url, row.device.device_id)


class ReadingAdmin(OfDeviceAdmin):
    list_filter = (DeviceFilter, lately("timestamp"))
    empty_text = "No reading is stored. The readings of a device show here as soon as it sends one."
    exclude = ("device",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("of_device",)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the time, the device and a column for each declared value, with its unit in the head."""
        own = [
            f for f in self.model._meta.fields if f.name not in ("id", "device", "received_at", "timestamp")
        ]
        self.list_display = ("timestamp", "of_device", *(f.name for f in own))
        columns = super().get_list_display(request)
        return [
            *columns[:2],
            *(self._with_unit(f, column) for f, column in zip(own, columns[2:], strict=True)),
        ]

    def _with_unit(self, field: Any, column: Any) -> Any:
        kind = next((kind for kind in registry if self.model in kind.value_models), None)
        reading = kind.readings.get(field.name) if kind else None
        sign = unit(reading.unit) if reading else ""

        @admin.display(
            description=texts.label(field) + (f" ({sign})" if sign else ""),
            ordering=field.name,
        )
        def cell(row: Any) -> Any:
            return column(row) if callable(column) else getattr(row, field.name)

        cell.__name__ = column.__name__ if callable(column) else field.name
        return cell


class MessageAdmin(OfDeviceAdmin):
    list_display = ("received_at", "of_device", "topic", "result", "processing_error")
    list_filter = ("outcome", DeviceFilter, lately("received_at"))
    empty_text = "No message is stored. Each message of a device shows here, also one that was refused."
    readonly_fields = ("of_device", "result", "dropped", "received_at", "in_quarantine")
    readonly_preprocess_fields = PREPROCESSED
    fieldsets = (
        (None, {"fields": ("of_device", "topic", "received_at")}),
        ("Outcome", {"fields": ("result", "dropped", "processing_error", "processed_at")}),
        ("Payload", {"fields": ("payload_json", "payload_raw", "in_quarantine", "content_type")}),
        ("Properties", {"fields": ("correlation_id", "user_properties")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the messages without their payloads: those of a page of the list may take gigabytes of memory."""
        found: QuerySet[Any] = super().get_queryset(request)
        return found.defer("payload_json", "payload_raw", "user_properties")

    @admin.display(description="Outcome", ordering="outcome")
    def result(self, message: BaseMessage) -> str:
        return cells.toned(*OUTCOMES[message.outcome]) if message.outcome in OUTCOMES else cells.EMPTY

    @admin.display(description="Notes")
    def dropped(self, message: BaseMessage) -> str:
        """Return the dropped values, each with its reason."""
        notes = message.notes if isinstance(message.notes, list) else []
        items = format_html_join("", "<li>{}</li>", ((str(note),) for note in notes))
        return format_html("<ul>{}</ul>", items) if notes else cells.EMPTY

    @admin.display(description="Payload in the quarantine")
    def in_quarantine(self, message: BaseMessage) -> str:
        """Return the beginning of a failed message's payload, with a link to the whole row."""
        row = message.quarantined
        if row is None:
            return cells.EMPTY
        url = reverse("admin:devicehub_quarantinedmessage_change", args=[row.pk])
        return format_html('<a href="{}">{}</a>: {}', url, row.pk, _shown(row.payload))


class ReplayedFilter(ChoiceFilter):
    """Filters quarantined messages by whether they have been replayed."""

    title, parameter_name = "replayed", "replayed"
    options = {
        "no": ("No", lambda: Q(replayed_at=None)),
        "yes": ("Yes", lambda: Q(replayed_at__isnull=False)),
    }


@admin.register(QuarantinedMessage)
class QuarantineAdmin(Replays, Dismisses, EvidenceAdmin):
    actions = ("replay", "dismiss")
    panels: ClassVar[list[Panel]] = [acts_panel]
    belongs_to = "device_key"
    list_display = ("received_at", "id", "device_key", "reason", "topic", "detail", "replayed_at")
    list_filter = ("reason", ReplayedFilter, DismissedFilter, lately("received_at"))
    search_fields = ("=id", "topic", "device_key")
    search_help_text = "Number, topic or device id"
    empty_text = (
        "No message waits in quarantine. One that cannot be stored is kept here, with the reason; the filter finds "
        "dismissed ones."
    )
    readonly_fields = ("of_device", "payload_as_sent", "size")
    readonly_preprocess_fields = PREPROCESSED
    exclude = ("device_key",)

    @admin.display(description="Device")
    def of_device(self, row: QuarantinedMessage) -> str:
        return cells.device_of(row, "device_key")

    @admin.display(description="Payload")
    def payload_as_sent(self, row: QuarantinedMessage) -> str:
        return _shown(row.payload)


def _shown(payload: bytes | memoryview) -> str:
    """Return the beginning of *payload*: as text if it is printable, else in hexadecimal digits."""
    beginning = bytes(payload)[:SHOWN_BYTES]
    more = f" ... ({len(payload):,} bytes)" if len(payload) > SHOWN_BYTES else ""
    try:
        text = beginning.decode()
    except UnicodeDecodeError:
        text = beginning.hex(" ")
    return (text if text.isprintable() else beginning.hex(" ")) + more if text else "(empty)"


@admin.register(CountedRefusal)
class CountedRefusalAdmin(EvidenceAdmin):
    belongs_to = "device_key"
    list_display = ("last_at", "device_key", "reason", "count", "first_at")
    list_filter = ("reason",)
    search_fields = ("device_key",)
    empty_text = "No message was refused beyond the space that its device has in the quarantine."


@admin.register(IngestWorker)
class IngestWorkerAdmin(EvidenceAdmin):
    list_display = ("client_id", "group", "heard_since", "heard_until")
    empty_text = "No worker has run in the last 8 days. Start one: manage.py listen_mqtt"


@admin.register(RetainedTopic)
class RetainedTopicAdmin(EvidenceAdmin):
    list_display = ("topic", "requested_at", "attempts", "next_at", "error")
    empty_text = "No retained message waits for its end at the broker."


@admin.register(RemovalRequest)
class RemovalRequestAdmin(EvidenceAdmin):
    belongs_to = "device_key"
    list_display = ("device_key", "requested_at")
    empty_text = "No device is being removed. One with many rows stands here until a worker has deleted them."
