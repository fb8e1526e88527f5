"""The admin pages of events, and of the values of those that a project records."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.utils.html import format_html, format_html_join

from devicehub.admin import cells, sidebar, texts
from devicehub.admin.lists import DeviceFilter, lately
from devicehub.dashboard import links
from devicehub.lwm2m import event_rows
from devicehub.lwm2m.admin.values import HELP, OfEndpointAdmin, ValuesAdmin
from devicehub.lwm2m.models import Event, EventResource
from devicehub.lwm2m.pages.values import beginnings, shown_of

MOST = 200  # Values on the page of an event.


class EventTypeFilter(admin.SimpleListFilter):
    """Filters events by type: ours, and that of a project which the address names."""

    title, parameter_name = "type", "type"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = event_rows.types(
            model_admin.get_queryset(request), request.GET.get(self.parameter_name, "")
        )
        return found

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        return event_rows.selected(queryset, of_type=self.value() or "")


class EventAdmin(OfEndpointAdmin):
    """The page of events."""

    list_display = ("timestamp", "of_device", "type", "detail", "received_at")
    list_filter = (EventTypeFilter, DeviceFilter, lately("timestamp"))
    exclude = ("device",)
    readonly_fields = ("of_device", "values")
    empty_text = "No event is stored. Each notification, Send and registration of an endpoint shows here."

    def noun(self, count: int = 1) -> str:
        return "LwM2M event" if count == 1 else "LwM2M events"

    @admin.display(description="Values")
    def values(self, row: Any) -> str:
        """Return the values of the event, at most MOST."""
        found = list(beginnings(row.values()).order_by("path")[: MOST + 1])
        items = [(one.path, shown_of(one).text) for one in found[:MOST]]
        listed = format_html_join("", '<li><span class="dh-code">/{}</span> {}</li>', items)
        more = format_html("<li>the first {}</li>", MOST) if len(found) > MOST else ""
        return format_html("<ul>{}{}</ul>", listed, more) if items else cells.EMPTY


class EventResourceAdmin(ValuesAdmin):
    """The page of values of events that a project records."""

    list_display = ("timestamp", "of_device", "of_event", "place", "value_shown", "type")
    list_filter = (DeviceFilter, "type", lately("timestamp"))
    list_select_related = ("device", "event")
    ordering = ("-timestamp", "-pk")
    exclude = (*ValuesAdmin.exclude, "event")
    readonly_fields = ("of_event", *ValuesAdmin.readonly_fields)
    empty_text = "No value is stored. Those of the events that your project records or declares show here."

    def noun(self, count: int = 1) -> str:
        return "value of an event" if count == 1 else "values of events"

    @admin.display(description="Event", ordering="event__type")
    def of_event(self, row: Any) -> str:
        """Return a link to the event."""
        url = links.address("admin:lwm2m_event_change", row.event.pk)
        return format_html('<a class="dh-link" href="{}">{}</a>', url, row.event.type)


texts.register(
    Event,
    {
        "device": "The endpoint at which it happened.",
        "type": "notification, send, registration, or a type of your project.",
        "detail": "Of a registration: registered, updated, deregistered, expired, outdated, awake or sleeping.",
        "timestamp": "The time of its newest value.",
        "earliest": "The time of its oldest value, if its values have several times.",
        "received_at": "The time when it arrived.",
    },
)
texts.register(EventResource, {**HELP, "event": "The event that it belongs to."})


sidebar.register(
    "LwM2M events", "admin:lwm2m_event_changelist", group=sidebar.MESSAGES, icon="bolt", order=60
)
sidebar.register(
    "Values of LwM2M events",
    "admin:lwm2m_eventresource_changelist",
    group=sidebar.MESSAGES,
    icon="list_alt",
    order=63,
)
