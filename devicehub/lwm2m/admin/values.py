"""The admin pages of the latest values of resources, and of their history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from devicehub.admin import cells, sidebar, texts
from devicehub.admin.lists import DeviceFilter, lately
from devicehub.admin.records import OfDeviceAdmin
from devicehub.kinds.units import unit
from devicehub.lwm2m.models import Endpoint, Resource, ResourceType, ResourceValue
from devicehub.lwm2m.pages.values import beginnings, shown_of
from devicehub.messages.lwm2m.paths import MAX_ID

BEGINS_PATH = re.compile(r"/?[0-9]{1,5}(/[0-9]{1,5}){0,3}/?")
MOST_WORDS = (
    10  # Each adds a subquery: with 200 of them, the planner of PostgreSQL takes all memory of its machine.
)
MOST_ENDPOINTS = 100  # Of which a search lists the rows.
MOST_PATHS = 1_000
HELP = {
    "device": "The endpoint.",
    "place": "Its object, object instance, resource, and resource instance if it has several.",
    "value_shown": "The value as it came, with all its digits.",
    "type": "The type of its definition; without one, the type that its encoding suggests.",
    "timestamp": "The time of measurement, or else of receipt.",
    "received_at": "The time when it arrived.",
}


class OfEndpointAdmin(OfDeviceAdmin):
    """A page of rows of endpoints, which are found by the words of a search, one after the other.

    The endpoints are read first: to compare the names of each row's endpoint takes seconds in a long history.
    """

    search_help_text = "The beginning of a device id or endpoint name"

    def get_views(self, request: HttpRequest) -> list[tuple[str, str, bool]]:
        """Return no links: only endpoints have such rows."""
        return []

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows that *search_term* names."""
        others, chosen = [], DeviceFilter.chosen(request)
        devices = None if chosen is None else [chosen]
        words = list(dict.fromkeys(search_term.split()))
        if len(words) > MOST_WORDS:
            messages.info(request, f"Search for at most {MOST_WORDS} words at once")
            return queryset.none(), False
        for word in words:
            named = Q(device_id__startswith=word) | Q(endpoint_name__startswith=word)
            found: Any = Endpoint.objects.filter(named).order_by("device_id")
            keys = list(found.values_list("pk", flat=True)[:MOST_ENDPOINTS])
            if keys:
                queryset, devices = queryset.filter(device__in=keys), keys
            else:
                others.append(word)
        hint = self.hint(others) if others and devices is None else ""
        if hint:
            messages.info(request, hint)
            return queryset.none(), False
        for word in others:
            queryset = self.by_other(queryset, word, devices)
        return queryset, False

    def hint(self, words: Sequence[str]) -> str:
        """Return what to add to a search for *words* in which no endpoint is named, or ""."""
        return ""

    def by_other(self, queryset: QuerySet[Any], word: str, devices: Sequence[int] | None) -> QuerySet[Any]:
        """Return the rows for a *word* that begins the name of no endpoint. *devices* are the keys of those named."""
        return queryset.none()


class ValuesAdmin(OfEndpointAdmin):
    """A page of many values of each endpoint. No index finds a path in all of them, but in those of an endpoint."""

    search_help_text = "The beginning of a device id or endpoint name, and of a path: urn:dev:a 3303/0/5700"
    exclude: ClassVar[tuple[str, ...]] = (
        "device",
        "opaque",
        "number",
        "integer",
        "text",
        "path",
        "resource_type",
    )
    readonly_fields: ClassVar[tuple[str, ...]] = ("of_device", "place", "value_shown")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows with the beginnings of their values."""
        return beginnings(super().get_queryset(request))

    def hint(self, words: Sequence[str]) -> str:
        """Return the hint to name an endpoint, if *words* are paths."""
        if not all(map(BEGINS_PATH.fullmatch, words)):
            return ""
        return f"Name an endpoint too, or choose one in the filter: its device id, a space, and {words[0]}"

    def by_other(self, queryset: QuerySet[Any], word: str, devices: Sequence[int] | None) -> QuerySet[Any]:
        """Return the rows whose path *word* begins."""
        if not BEGINS_PATH.fullmatch(word):
            return queryset.none()
        return queryset.filter(path__startswith=word.strip("/"))

    @admin.display(description="Path", ordering="path")
    def place(self, row: Any) -> str:
        return cells.code(f"/{row.path}")

    @admin.display(description="Value")
    def value_shown(self, row: Any) -> str:
        """Return the value as pages show it."""
        found = shown_of(row)
        text = cells.code(found.text) if found.is_code else found.text
        return format_html("{} {}", text, found.more) if found.more else text


class ResourceAdmin(ValuesAdmin):
    """The page of the latest values of resources."""

    list_display = ("timestamp", "of_device", "place", "resource", "value_shown", "type")
    list_filter = (DeviceFilter, "type", lately("timestamp"))
    list_select_related = ("device", "resource_type")
    ordering = (
        "device_id",
        "path",
    )  # The order of an index: there is none by time, which each value would change.
    search_help_text = "The beginning of a device id, an endpoint name or a path, or the name of a resource"
    readonly_fields = (*ValuesAdmin.readonly_fields, "resource")
    empty_text = (
        "No value is stored. The latest value of each resource shows here as soon as an endpoint sends it."
    )

    def noun(self, count: int = 1) -> str:
        return "latest value" if count == 1 else "latest values"

    def hint(self, words: Sequence[str]) -> str:
        """Return "": the latest values are found by their objects."""
        return ""

    def by_other(self, queryset: QuerySet[Any], word: str, devices: Sequence[int] | None) -> QuerySet[Any]:
        """Return the rows whose path *word* begins, or whose resource has *word* in its name."""
        if BEGINS_PATH.fullmatch(word):
            return super().by_other(queryset, word, devices).filter(_objects(word.strip("/")))
        return queryset.filter(resource_type__in=ResourceType.objects.filter(name__icontains=word).order_by())

    @admin.display(description="Resource", ordering="resource_type__name")
    def resource(self, row: Any) -> str:
        """Return the name of the resource with its unit."""
        known = row.resource_type
        if known is None:
            return "not defined"
        return f"{known.name} ({unit(known.unit)})" if known.unit else known.name


def _objects(beginning: str) -> Q:
    """Return the condition on the object of paths with this *beginning*, for which there is an index."""
    number, slash, _ = beginning.partition("/")
    if slash:
        return Q(object_id=int(number))
    first, found, size = int(number), Q(), 1
    while first * size <= MAX_ID:
        found |= Q(object_id__range=(first * size, (first + 1) * size - 1))
        size *= 10
        if not first:
            break
    return found


class ResourceValueAdmin(ValuesAdmin):
    """The page of the history of values."""

    list_display = ("timestamp", "of_device", "place", "value_shown", "type", "received_at")
    list_filter = (DeviceFilter, "type", lately("timestamp"))
    empty_text = (
        "No value is stored. Each value that an endpoint sends shows here until retention deletes it."
    )
    exclude = (*ValuesAdmin.exclude, "event")

    def noun(self, count: int = 1) -> str:
        return "value" if count == 1 else "values"

    def by_other(self, queryset: QuerySet[Any], word: str, devices: Sequence[int] | None) -> QuerySet[Any]:
        """Return the rows whose path *word* begins. The latest values tell which paths there are, for the index."""
        if not BEGINS_PATH.fullmatch(word):
            return queryset.none()
        found: Any = Resource.objects.filter(device__in=devices or (), path__startswith=word.strip("/"))
        paths = found.order_by("path").values_list("path", flat=True).distinct()[:MOST_PATHS]
        return queryset.filter(path__in=list(paths))


texts.register(Resource, HELP)
texts.register(ResourceValue, HELP)


sidebar.register(
    "LwM2M values", "admin:lwm2m_resourcevalue_changelist", group=sidebar.MESSAGES, icon="timeline", order=61
)
sidebar.register(
    "Latest LwM2M values", "admin:lwm2m_resource_changelist", group=sidebar.MESSAGES, icon="speed", order=62
)
