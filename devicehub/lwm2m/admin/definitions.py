"""The admin pages of the definitions of objects and resources, which can be read and searched."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from devicehub.admin import cells, sidebar, texts
from devicehub.admin.base import EvidenceAdmin
from devicehub.dashboard import links
from devicehub.kinds.units import unit
from devicehub.lwm2m.models import ObjectType, ResourceType


class DefinitionAdmin(EvidenceAdmin):
    """A page of definitions, which come from object files. Everybody who may see them sees all: they name no device."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = self.model._default_manager.order_by(*self.model._meta.ordering)
        return rows

    def _is_hidden(self, request: HttpRequest) -> bool:
        return False


class ObjectTypeAdmin(DefinitionAdmin):
    """The page of the definitions of objects."""

    list_display = ("name", "number", "version", "resource_count", "multiple", "origin")
    list_filter = ("multiple", "mandatory")
    search_fields = ("name", "=object_id", "urn", "description")
    search_help_text = "Name, object id, URN or description"
    empty_text = "No object is defined. Import object files: manage.py import_lwm2m_objects PATH..."
    fieldsets = (
        (None, {"fields": ("number", "version", "name", "description")}),
        ("Definition", {"fields": ("urn", "multiple", "mandatory", "origin")}),
        ("Resources", {"fields": ("resource_list",)}),
    )
    readonly_fields = ("number", "resource_list")

    def noun(self, count: int = 1) -> str:
        return "LwM2M object" if count == 1 else "LwM2M objects"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the objects with the numbers of their resources."""
        rows: QuerySet[Any] = super().get_queryset(request).annotate(resource_number=Count("resources"))
        return rows

    @admin.display(description="Object id", ordering="object_id")
    def number(self, row: Any) -> str:
        return cells.code(f"/{row.object_id}")

    @admin.display(description="Resources")
    def resource_count(self, row: Any) -> str:
        """Return the number of resources, as a link to their list."""
        url = cells.list_url(ResourceType, f"?object__id__exact={row.pk}")
        return format_html('<a class="dh-link" href="{}">{}</a>', url, row.resource_number)

    @admin.display(description="Resources")
    def resource_list(self, row: Any) -> str:
        """Return the resources, each with its type, operations and unit."""
        items = [
            (_page(one), one.resource_id, one.name, _summary(one))
            for one in row.resources.order_by("resource_id")
        ]
        listed = format_html_join("", '<li><a class="dh-link" href="{}">{} {}</a> {}</li>', items)
        return format_html("<ul>{}</ul>", listed) if items else cells.EMPTY


def _page(row: Any) -> str:
    meta = row._meta
    return links.address(f"admin:{meta.app_label}_{meta.model_name}_change", row.pk)


def _summary(one: ResourceType) -> str:
    parts = [
        one.type or "executable",
        one.operations,
        unit(one.unit),
        "several instances" if one.multiple else "",
    ]
    return ", ".join(part for part in parts if part)


class ResourceTypeAdmin(DefinitionAdmin):
    """The page of the definitions of resources."""

    list_display = ("name", "number", "of_object", "type", "operations", "unit", "range", "multiple")
    list_filter = ("type", "operations", "multiple")
    list_select_related = ("object",)
    search_fields = ("name", "=resource_id", "=object__object_id", "object__name", "description")
    search_help_text = "Name, resource id, object id, name of the object, or description"
    empty_text = "No resource is defined. Import object files: manage.py import_lwm2m_objects PATH..."
    fields = (
        "number", "of_object", "name", "description", "type", "operations", "unit", "range", "multiple", "mandatory",
    )  # fmt: skip
    readonly_fields = ("number", "of_object")

    def noun(self, count: int = 1) -> str:
        return "LwM2M resource" if count == 1 else "LwM2M resources"

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Return whether the address may filter by *lookup*: the list of one object does."""
        return lookup == "object__id__exact" or super().lookup_allowed(lookup, value, request)

    @admin.display(description="Resource id", ordering="resource_id")
    def number(self, row: Any) -> str:
        return cells.code(f"/{row.object.object_id}/…/{row.resource_id}")

    @admin.display(description="Object", ordering="object__object_id")
    def of_object(self, row: Any) -> str:
        """Return a link to the object."""
        url = _page(row.object)
        return format_html('<a class="dh-link" href="{}">{}</a>', url, row.object)


texts.register(
    ObjectType,
    {
        "object_id": "The number of the object in paths.",
        "version": "The version of this definition; endpoints name theirs when they register.",
        "name": "The name of the object.",
        "description": "The purpose, as its file says.",
        "urn": "Its name in the registry of OMA.",
        "multiple": "Whether an endpoint may have several instances of it.",
        "mandatory": "Whether every endpoint has it.",
        "origin": "The file from which its definition comes.",
    },
)

texts.register(
    ResourceType,
    {
        "object": "The object that has it.",
        "resource_id": "The number of the resource in paths.",
        "name": "The name of the resource.",
        "type": "The type of its values. An executable has none.",
        "operations": "R is read, W is write, E is execute. Without any it can only be set at bootstrap.",
        "multiple": "Whether it may have several instances.",
        "mandatory": "Whether each instance of the object has it.",
        "unit": "The unit of its values.",
        "range": "The values that it may have.",
        "description": "The meaning, as its file says.",
    },
)


sidebar.register(
    "LwM2M objects", "admin:lwm2m_objecttype_changelist", group=sidebar.FLEET, icon="schema", order=120
)
sidebar.register(
    "LwM2M resources",
    "admin:lwm2m_resourcetype_changelist",
    group=sidebar.FLEET,
    icon="data_object",
    order=121,
)
