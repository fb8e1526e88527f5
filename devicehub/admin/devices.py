"""The pages of devices."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import ProtectedError, QuerySet, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from authsvc.models import Denial, Grant
from devicehub import provisioning, removal, states, visibility
from devicehub.admin import cells, device_rights, texts
from devicehub.admin.base import ITSELF, Panel
from devicehub.admin.bulk import ManyDevices
from devicehub.admin.credentials import WithCredentials
from devicehub.admin.lists import CredentialsFilter, QuietFilter, SiteFilter, StateFilter
from devicehub.admin.notices import say_instead
from devicehub.admin.options import HEARTBEAT, RATE, TAGS, OptionsForm, WithOptions
from devicehub.admin.row_actions import RowActions
from devicehub.dashboard import bulk
from devicehub.kinds.identifiers import is_client_id, is_text
from devicehub.kinds.registry import Kind, registry
from devicehub.models import (
    NAMES,
    OPERATOR_STATES,
    BaseDevice,
    DeviceCommand,
    DeviceStatus,
    QuarantinedMessage,
)
from devicehub.removal import requests

SHOWN_DEVICES = 100  # The confirmation page of a deletion lists at most this many.
GOES_LATER = "; disabled at once, then removed in the background"
# People with a limit do not learn by which identity.
TAKEN = "Another identity has one of these names already; choose another one."
SHOWN = (
    *("mqtt_username", "password_expires_at", "last_seen", "battery_level", "firmware_version"),
    *("created_at", "updated_at"),
)
BY_DEVICE = ("", "As the device reports it")
# The sections of the form. A field in none of them is one that the type or the project declares.
SECTIONS = {
    "Identity": ("device_id", "name", "site", TAGS),
    "State": ("now", "status", "is_active", "last_seen", "battery_level", "firmware_version"),
    "Login": ("mqtt_username", "mqtt_client_id", "password_expires_at"),
    "Limits": (HEARTBEAT, RATE),
    "Declared by the type": (),
    "Metadata": ("metadata",),
    "Dates": ("created_at", "updated_at"),
}


class StatusField(forms.ChoiceField):
    """The status that an operator chose; empty for any other, which is that of the device."""

    widget = forms.RadioSelect(attrs={"class": "dh-boxes"})

    def prepare_value(self, value: Any) -> Any:
        return value if value in OPERATOR_STATES else ""

    def to_python(self, value: Any) -> str:
        return value if value in OPERATOR_STATES else ""

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.to_python(initial) != self.to_python(data)


class DeviceForm(OptionsForm):
    """The form of a device. It refuses names of another identity, since a shared name locks both identities out."""

    user: Any = None  # The reader of the page; DeviceAdmin.get_form() sets it.

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        device, given = self.instance, self.cleaned_data
        # Only changed names are checked: a device that already has a wrong name can still be disabled.
        new = [given[n] for n in NAMES if n in given and n in self.changed_data]
        try:
            if not device.pk and "device_id" in given:
                provisioning.refuse_used(registry.of(device), given["device_id"], self.user)
            provisioning.refuse_taken([n for n in new if n], but=device if device.pk else None)
        except provisioning.IdentityTaken as error:
            is_limited = visibility.is_limited(self.user)
            raise ValidationError(TAKEN if is_limited else str(error)) from error
        return cleaned

    def clean_mqtt_client_id(self) -> str | None:
        """Return the client id, or None if it is empty: the column is unique, and allows NULL more than once."""
        client_id: str | None = self.cleaned_data["mqtt_client_id"] or None
        if client_id is not None and not is_client_id(client_id):
            raise ValidationError("Use 1-128 characters, without +, # and control characters.")
        return client_id

    def clean_site(self) -> str:
        """Return the site. Raise ValidationError for one that a user who is limited to sites may not choose."""
        site: str = self.cleaned_data["site"]
        try:
            visibility.check_site(self.user, site)
        except PermissionDenied as error:
            raise ValidationError(str(error)) from error
        return site

    def clean_status(self) -> str:
        """Return the chosen status; without a choice that of the device, which ends one of an operator."""
        return provisioning.chosen_status(self.instance, self.cleaned_data["status"])


def links(request: HttpRequest, device: BaseDevice) -> str:
    """Return links to the pages about *device* that its reader may see."""
    kind = registry.of(device)
    if kind is None:
        return ""
    key = kind.key(device.device_id)
    found: list[tuple[str, type[Any], str]] = [
        *(("Readings", model, f"?device={device.pk}") for model in kind.value_models[:1]),
        ("Messages", kind.message_model, f"?device={device.pk}"),
        ("Commands", DeviceCommand, f"?device_key__exact={key}"),
        ("Denials", Denial, f"?principal__exact={key}"),
        ("Quarantine", QuarantinedMessage, f"?device_key__exact={key}"),
        ("Grants", Grant, f"?device={key}"),
    ]
    shown = [
        (url, label)
        for label, model, query in found
        if _may_list(request, model) and (url := cells.list_url(model, query))
    ]
    items = format_html_join("", '<a href="{}">{}</a>', shown)
    return (
        format_html('<nav class="dh-views" aria-label="More about this device">{}</nav>', items)
        if shown
        else ""
    )


def command_panel(request: HttpRequest, device: BaseDevice) -> str:
    """Return the button that leads to the form of a command, for a user who may send one to *device*."""
    kind = registry.of(device)
    if kind is None or not bulk.may(request.user, "send", kind):
        return ""
    context = {"device": device, "list_url": cells.list_url(kind.device_model)}
    return render_to_string("devicehub/admin/send_command.html", context, request)


def _may_list(request: HttpRequest, model: type[Any]) -> bool:
    page = admin.site._registry.get(model)
    return page is not None and page.has_view_permission(request)


class DeviceAdmin(RowActions, WithOptions, ManyDevices, WithCredentials):
    form = DeviceForm
    belongs_to = ITSELF
    panels: ClassVar[list[Panel]] = [device_rights.panel, command_panel, links]
    pairs = ("metadata",)
    list_display: tuple[str, ...] = ("device_id", "now", "last_seen", "credentials", "name", "site")
    list_filter: ClassVar[tuple[Any, ...]] = (
        StateFilter,
        CredentialsFilter,
        QuietFilter,
        "connected",
        SiteFilter,
    )
    views = (
        ("All", ""),
        ("Silent", "?state=silent"),
        ("Never seen", "?state=never"),
        ("Without credentials", "?credentials=none"),
        ("Expired", "?credentials=expired"),
    )
    search_fields: ClassVar[tuple[str, ...]] = ("device_id", "name", "mqtt_username")
    search_help_text = "Device id, name or username"
    empty_text = "There are no devices of this type yet. Add one, or import many from a file."

    def noun(self, count: int = 1) -> str:
        """Return the word for *count* rows. The name of a type has the case of a title."""
        return texts.in_a_sentence(super().noun(count))

    def get_urls(self) -> list[Any]:
        """Return the pages of the model, and an address by device id, for links from rows that have only the key."""
        meta = self.model._meta
        named = path(
            "named/<str:device_id>/",
            self.admin_site.admin_view(self.show_named),
            name=f"{meta.app_label}_{meta.model_name}_named",
        )
        return [named, *super().get_urls()]

    def show_named(self, request: HttpRequest, device_id: str) -> HttpResponse:
        """Redirect to the page of the device *device_id*, if the user may see it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if not is_text(device_id):
            raise Http404
        device = get_object_or_404(self.get_queryset(request), device_id=device_id)
        meta = self.model._meta
        return HttpResponseRedirect(
            reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[device.pk])
        )

    @property
    def kind(self) -> Kind | None:
        """The kind of these devices."""
        return registry.of(self.model)

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        """Return the order: a device that needs a look comes first, then by id."""
        return [*([states.rank(self.kind)] if self.kind else []), "device_id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        return states.ranked(self.kind, rows) if self.kind else rows

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns, without a name or a site if no device has one."""
        devices = self.get_queryset(request).order_by()
        unused = {
            name
            for name in ("name", "site")
            if name in self.list_display and not devices.exclude(**{name: ""}).exists()
        }
        columns = super().get_list_display(request)
        return [column for column in columns if getattr(column, "__name__", column) not in unused]

    @admin.display(description="State", ordering="state_rank")
    def now(self, device: BaseDevice) -> str:
        """Return the state of *device*, with others that hold as words."""
        if self.kind is None:
            return device.status
        first, *others = states.holding(self.kind, device)
        also = ", ".join(state.word.lower() for state in others)
        return format_html("<span>{}{}</span>", cells.state(first), f", {also}" if also else "")

    @admin.display(description="Credentials")
    def credentials(self, device: BaseDevice) -> str:
        """Return in a word whether *device* can log in."""
        now = timezone.now()
        if not device.mqtt_password_hash:
            return cells.toned("disabled", "off", "None")
        if device.password_expires_at is not None and device.password_expires_at <= now:
            return cells.toned("expires", "warn", "Expired")
        if device.previous_valid_until is not None and device.previous_valid_until > now:
            return cells.toned("part", "busy", "Two valid")
        return cells.toned("done", "good", "Valid")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change=change, **options)
        return type(form.__name__, (form,), {"user": request.user})

    def formfield_for_dbfield(self, db_field: Any, request: Any, **options: Any) -> Any:
        """Return the form field of a column: a limited user chooses among their sites, and all among three states."""
        about = {"label": "Status", "help_text": options.get("help_text", ""), "required": False}
        if db_field.name == "status":
            chosen = [(status.value, status.label) for status in DeviceStatus if status in OPERATOR_STATES]
            return StatusField(choices=[BY_DEVICE, *chosen], **about)
        sites = visibility.sites_of(request.user) if db_field.name == "site" else None
        if sites is not None:
            choices = [(site, site) for site in sorted(sites)]
            return forms.ChoiceField(choices=choices, **{**about, "label": "Site", "required": True})
        return super().formfield_for_dbfield(db_field, request, **options)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Return the fields that the device reports, and those whose change has a button or a page of its own."""
        shown = (*SHOWN, "now", "device_id") if obj else SHOWN
        return (*shown, *self._of_kind(), *self.closed_options(request))

    def _of_kind(self) -> tuple[str, ...]:
        """Return the values that a device of this kind reports, and the switch of which *Disable* takes the place."""
        return ("is_active", *self.kind.state_fields) if self.kind else ()

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the sections of the form. A project may declare its own with `fields` or `fieldsets`."""
        if self.fields or self.fieldsets:
            return list(super().get_fieldsets(request, obj))
        hidden = {*(() if obj else (*SHOWN, *self._of_kind())), *self.hidden_options(request, obj)}
        fields = [str(name) for name in self.get_fields(request, obj) if name not in hidden]
        known = {name for names in SECTIONS.values() for name in names}
        sections = {title: [name for name in names if name in fields] for title, names in SECTIONS.items()}
        sections["Declared by the type"] = [name for name in fields if name not in known]
        return [(title, {"fields": names}) for title, names in sections.items() if names]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save a device. Of an existing one only the changed columns: messages change the others meanwhile."""
        if not change:
            super().save_model(request, obj, form, change)
            return
        columns = {field.name for field in obj._meta.concrete_fields}
        obj.save(update_fields=[name for name in form.changed_data if name in columns] + ["updated_at"])

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], list[Any]]:
        """Return the content of the confirmation page: each device, with the numbers of rows to be deleted.

        The method of Django would load every row of the devices.
        """
        devices = list(objs)
        going = "" if removal.have_few_rows(devices) else GOES_LATER
        shown = [
            f"{cells.title(device)}: {_rows_in_words(device)}{going}" for device in devices[:SHOWN_DEVICES]
        ]
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
        if removal.delete_or_request(devices):
            return
        which = devices[0].device_id if len(devices) == 1 else f"{len(devices):,} devices"
        verb = "is" if len(devices) == 1 else "are"
        say_instead(request, f"{which} {verb} disabled and being removed.")


def _rows_in_words(device: Any) -> str:
    named = []
    for name, count in removal.count_rows(device).items():
        number = f"more than {requests.FEW:,}" if count > requests.FEW else f"{count:,}"
        words = name.replace("_", " ")
        named.append(f"{number} {words.removesuffix('s') if count == 1 else words}")
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
