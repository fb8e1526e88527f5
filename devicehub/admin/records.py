"""The pages of records that the system writes: readings, messages, the quarantine and the worker's own rows."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from devicehub.admin.base import RecordAdmin
from devicehub.models import (
    BaseMessage,
    CountedRefusal,
    IngestWorker,
    QuarantinedMessage,
    RemovalRequest,
    RetainedTopic,
)

SHOWN_BYTES = 2000  # A longer quarantined payload is cut.


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
        """Return the beginning of a failed message's payload, with a link to the whole row."""
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
    """Return the beginning of *payload*: as text if it is printable, else in hexadecimal digits."""
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


@admin.register(IngestWorker)
class IngestWorkerAdmin(RecordAdmin):
    list_display = ("client_id", "group", "heard_since", "heard_until")


@admin.register(RetainedTopic)
class RetainedTopicAdmin(RecordAdmin):
    list_display = ("topic", "requested_at", "attempts", "next_at", "error")


@admin.register(RemovalRequest)
class RemovalRequestAdmin(RecordAdmin):
    list_display = ("device_key", "requested_at")
