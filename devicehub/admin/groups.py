"""The pages of groups of devices: members one per line, or a filter with check boxes and the number it selects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.http import require_POST, require_safe

from devicehub import provisioning
from devicehub.admin import cells, suggestions
from devicehub.admin.base import ModelAdmin
from devicehub.admin.grants import DEVICE, Suggested
from devicehub.admin.widgets import ChoiceBoxesField, LinesField
from devicehub.kinds.registry import registry
from devicehub.models import DeviceGroup, DeviceTag

OFFERED = 500  # Sites and tags that the form offers.
CHOSEN, FILTER = "chosen", "filter"


class MembersField(LinesField):
    """Devices, one per line: their keys, or device ids that only one device has."""

    most = 10_000

    def clean(self, value: Any) -> list[str]:
        """Return the keys of the devices. Raise ValidationError, which names lines that are not one device."""
        lines: list[str] = super().clean(value)
        found = provisioning.keys_of([line for line in lines if "/" not in line])
        keys = {line: [line] if "/" in line else found.get(line, []) for line in lines}
        if wrong := [line for line, own in keys.items() if len(own) != 1]:
            shown = ", ".join(wrong[:10]) + (" ..." if wrong[10:] else "")
            raise ValidationError(f"Not the id of one device: {shown}. Write type/id.", code="unknown")
        return [own[0] for own in keys.values()]


class AddMember(Suggested):
    """A field that adds a line to the members; a script alone uses it."""

    def __init__(self) -> None:
        super().__init__(DEVICE)
        self.attrs |= {"data-into": "id_members", "placeholder": "Search a device, then press Enter"}


def _types() -> list[tuple[str, str]]:
    return [(kind.slug, kind.name) for kind in registry]


def _sites() -> list[tuple[str, str]]:
    found: set[str] = set()
    for kind in registry:
        rows = kind.device_model.objects.exclude(site="").order_by("site").values_list("site", flat=True)
        found |= set(rows.distinct()[:OFFERED])
    return [(site, site) for site in sorted(found)[:OFFERED]]


def _tags() -> list[tuple[str, str]]:
    rows = DeviceTag.objects.order_by("tag").values_list("tag", flat=True).distinct()
    return [(tag, tag) for tag in rows[:OFFERED]]


class GroupForm(forms.ModelForm):  # type: ignore[type-arg]
    """A group, by its members or by a filter."""

    how = forms.ChoiceField(
        label="Members",
        choices=((CHOSEN, "Chosen one by one"), (FILTER, "All devices that fit a filter")),
        initial=CHOSEN,
        widget=forms.RadioSelect(attrs={"class": "dh-boxes"}),
    )
    add_member = forms.CharField(label="Add a device", required=False, widget=AddMember())
    members = MembersField(
        label="Devices",
        required=False,
        help_text="One per line: a key such as weatherstation/STATION-001, or a device id.",
    )
    types = ChoiceBoxesField(choices=_types, required=False, help_text="None checked: all types.")
    sites = ChoiceBoxesField(choices=_sites, required=False, help_text="None checked: all sites.")
    tags = ChoiceBoxesField(
        choices=_tags, required=False, help_text="A device fits if it has one of these. None checked: all."
    )

    class Meta:
        model = DeviceGroup
        fields = ("slug", "name", "note", "types", "sites", "tags")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        group = self.instance
        if group.pk:
            self.initial["how"] = FILTER if group.has_filter else CHOSEN
            rows = group.members.order_by("device_key").values_list("device_key", flat=True)
            self.initial["members"] = [] if group.has_filter else list(rows[: MembersField.most + 1])
        for name in ("types", "sites", "tags"):  # Words of the group that no device has now stay choosable.
            field: Any = self.fields[name]
            listed = list(field.choices)
            known = {value for value, _ in listed}
            field.choices = [*listed, *((word, word) for word in getattr(group, name) if word not in known)]

    def clean(self) -> dict[str, Any] | None:
        """Empty the filter of a group with chosen members. A filter must select something by at least one list."""
        cleaned = super().clean()
        given = self.cleaned_data
        if given.get("how") == FILTER:
            given["members"] = None
            if not any(given.get(name) for name in ("types", "sites", "tags")):
                self.add_error("types", "Check at least one type, site or tag.")
        elif given.get("how") == CHOSEN:
            given["types"], given["sites"], given["tags"] = [], [], []
            given.setdefault("members", None)
            unknown = sorted(set(given["members"] or ()) - provisioning.existing(given["members"] or ()))
            if unknown:
                shown = ", ".join(unknown[:10]) + (" ..." if unknown[10:] else "")
                self.add_error("members", f"These name no device: {shown}.")
        return cleaned


@admin.register(DeviceGroup)
class GroupAdmin(ModelAdmin):
    form = GroupForm
    change_form_template = "devicehub/admin/group.html"
    list_display = ("name", "slug", "number_of_members", "selection", "note")
    search_fields = ("name", "slug", "note")
    empty_text = "There is no group yet. A group is one subject of grants for many devices."
    fieldsets = (
        (None, {"fields": ("name", "slug", "note")}),
        ("Members", {"fields": ("how", "add_member", "members", "types", "sites", "tags")}),
    )

    class Media:
        js = ("devicehub/grants.js",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        found: QuerySet[Any] = super().get_queryset(request).annotate(member_count=Count("members"))
        return found

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Return the slug of an existing group: grants name it."""
        return ("slug",) if obj else ()

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, Sequence[str]]:
        """Return the fields that follow others while they are typed: the slug of a new group follows its name."""
        return {} if obj else {"slug": ("name",)}

    @admin.display(description="Members", ordering="member_count")
    def number_of_members(self, group: Any) -> str:
        return cells.number(group.member_count)

    @admin.display(description="Filter")
    def selection(self, group: DeviceGroup) -> str:
        lists = (("type", group.types), ("site", group.sites), ("tag", group.tags))
        return "; ".join(f"{name} {', '.join(words)}" for name, words in lists if words) or "chosen"

    def get_urls(self) -> list[Any]:
        """Return the URLs of the admin, with the suggestions and the count of the form below each of its pages."""
        wrap = self.admin_site.admin_view
        suggest, count = wrap(require_safe(self.suggest_view)), wrap(require_POST(self.preview_view))
        return [
            path("add/suggest/", suggest, name="devicehub_devicegroup_suggest"),
            path("<int:_pk>/change/suggest/", suggest),
            path("add/preview/", count, name="devicehub_devicegroup_preview"),
            path("<int:_pk>/change/preview/", count),
            *super().get_urls(),
        ]

    def suggest_view(self, request: HttpRequest, _pk: int = 0) -> HttpResponse:
        """Return suggestions for a member."""
        self._check_writer(request)
        return suggestions.answer(request)

    def preview_view(self, request: HttpRequest, _pk: int = 0) -> HttpResponse:
        """Return the number of devices that the form selects; a script shows it in the form."""
        self._check_writer(request)
        form = self.get_form(request)(request.POST, instance=DeviceGroup.objects.filter(pk=_pk).first())
        form.is_valid()  # An empty name does not matter here.
        wrong = [form[name] for name in ("members", "types", "sites", "tags") if name in form.errors]
        name = "preview" if request.headers.get("x-requested-with") == "fetch" else "preview_page"
        more = {"title": "Members of a group", "media": self.media, "wrong": wrong}
        count = None if wrong else _count(form.cleaned_data)
        context = {**self.admin_site.each_context(request), **more, "count": count}
        answer = render(request, f"devicehub/admin/group_{name}.html", context)
        answer["Cache-Control"] = "no-store"
        return answer

    def _check_writer(self, request: HttpRequest) -> None:
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied

    def save_model(self, request: HttpRequest, obj: DeviceGroup, form: Any, change: bool) -> None:
        """Save the group and its members by the actions of provisioning, which record it."""
        members = form.cleaned_data.get("members")
        values = {name: getattr(obj, name) for name in ("name", "note", "types", "sites", "tags")}
        if change:
            provisioning.change_group(obj, members=members, **values)
            return
        made = provisioning.create_group(obj.slug, values.pop("name"), members=members or (), **values)
        obj.pk, obj._state.adding = made.pk, False

    def delete_model(self, request: HttpRequest, obj: DeviceGroup) -> None:
        provisioning.delete_group(obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for group in queryset:
            provisioning.delete_group(group)


def _count(given: dict[str, Any]) -> int:
    """Return how many devices the data of the form selects."""
    if given.get("how") != FILTER:
        return len(given.get("members") or ())
    lists = (given.get("types"), given.get("sites"), given.get("tags"))
    return provisioning.count_fitting(*(list(words or ()) for words in lists))
