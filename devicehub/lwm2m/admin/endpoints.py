"""The admin pages of endpoints and their messages."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from devicehub.admin import cells, sidebar, texts
from devicehub.admin.base import Panel
from devicehub.admin.devices import DeviceAdmin, DeviceForm
from devicehub.admin.lists import ChoiceFilter
from devicehub.admin.records import MessageAdmin
from devicehub.dashboard import links
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, EndpointMessage, Event, EventResource, Resource
from devicehub.lwm2m.names import device_id, is_endpoint_name
from devicehub.lwm2m.pages.endpoints import STATES
from devicehub.lwm2m.pages.endpoints import registration as registration_of

REGISTRATION = (
    "registration", "registration_id", "registered_at", "last_registration", "ends_at", "lifetime", "lwm2m_version",
    "binding", "queue_mode", "sleeping", "objects",
)  # fmt: skip
GLYPHS = {"connected": "good", "asleep": "busy", "expires": "warn", "never": "off"}


class EndpointForm(DeviceForm):
    """The form of an endpoint. A new one is typed by its endpoint name, from which its device id is made."""

    def clean_endpoint_name(self) -> str:
        """Return the endpoint name. Raise ValidationError for one that no endpoint can have."""
        name: str = self.cleaned_data["endpoint_name"]
        if not is_endpoint_name(name):
            raise ValidationError("Write the name with which the endpoint registers.")
        return name

    @cached_property
    def changed_data(self) -> list[str]:
        """The names of the changed fields, with the device id of a new endpoint."""
        return [*super().changed_data, *([] if self.instance.pk else ["device_id"])]

    def clean(self) -> dict[str, Any] | None:
        """Return the values, with the device id of a new endpoint. Raise ValidationError for a name that is taken."""
        if not self.instance.pk and "endpoint_name" in self.cleaned_data:
            made = device_id(self.cleaned_data["endpoint_name"])
            self.instance.device_id = self.cleaned_data["device_id"] = made
        return super().clean()


class RegistrationFilter(ChoiceFilter):
    """Filters endpoints by their registration."""

    title, parameter_name = "registration", "registration"
    options = {
        name: (word, lambda condition=condition: condition)  # type: ignore[misc]
        for name, (word, condition) in STATES.items()
    }


def more(request: HttpRequest, endpoint: Endpoint) -> str:
    """Return links to the pages about *endpoint* that other devices do not have, as far as its reader may see them."""
    found = [("Objects", links.device_page(KIND, endpoint.device_id))]
    for label, model in (("Latest values", Resource), ("Events", Event), ("Values of events", EventResource)):
        page = admin.site._registry.get(model)
        if page is not None and page.has_view_permission(request):
            found.append((label, cells.list_url(model, f"?device={endpoint.pk}")))
    items = format_html_join("", '<a href="{}">{}</a>', ((url, label) for label, url in found if url))
    return (
        format_html('<nav class="dh-views" aria-label="LwM2M pages of this endpoint">{}</nav>', items)
        if items
        else ""
    )


class EndpointAdmin(DeviceAdmin):
    """The page of endpoints: that of any device, with the registration."""

    form = EndpointForm
    panels: ClassVar[list[Panel]] = [*DeviceAdmin.panels, more]
    list_display = (
        "device_id", "endpoint", "now", "registration", "last_registration", "last_seen", "credentials", "name", "site",
    )  # fmt: skip
    list_filter = (RegistrationFilter, *DeviceAdmin.list_filter)
    search_fields = (*DeviceAdmin.search_fields, "endpoint_name")
    search_help_text = "Endpoint name, device id, name or username"
    empty_text = "There are no LwM2M endpoints yet. Add one, or let a Leshan server report its own."

    def noun(self, count: int = 1) -> str:
        """Return the word for *count* endpoints."""
        return "LwM2M endpoint" if count == 1 else "LwM2M endpoints"

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns, without the endpoint name if each is a device id."""
        columns = super().get_list_display(request)
        if self.get_queryset(request).order_by().exclude(endpoint_name=F("device_id")).exists():
            return columns
        return [column for column in columns if getattr(column, "__name__", column) != "endpoint"]

    @admin.display(description="Endpoint name", ordering="endpoint_name")
    def endpoint(self, endpoint: Endpoint) -> str:
        """Return the endpoint name, where it differs from the device id."""
        name = endpoint.endpoint_name
        return cells.code(name) if name != endpoint.device_id else cells.EMPTY

    @admin.display(description="Registration", ordering="registered")
    def registration(self, endpoint: Endpoint) -> str:
        """Return the state of the registration."""
        found = registration_of(endpoint, timezone.now())
        return cells.toned(found.state, GLYPHS[found.state], found.word)

    @admin.display(description="Ends")
    def ends_at(self, endpoint: Endpoint) -> str:
        """Return the time at which the registration ends without an update."""
        return cells.until(endpoint.registration_ends_at)

    @admin.display(description="Objects")
    def objects(self, endpoint: Endpoint) -> str:
        """Return the registered objects, each with its version, and a link to their values."""
        versions = endpoint.object_versions if isinstance(endpoint.object_versions, dict) else {}
        places = (
            [str(link) for link in endpoint.object_links] if isinstance(endpoint.object_links, list) else []
        )
        named = [
            (place, f" ({version})" if (version := versions.get(place.split("/")[1])) else "")
            for place in places
            if place.startswith("/")
        ]
        codes = format_html_join(", ", '<span class="dh-code">{}{}</span>', named) if named else cells.EMPTY
        url = links.device_page(KIND, endpoint.device_id)
        return (
            format_html('{} <a class="dh-link" href="{}">Show its values</a>', codes, url) if url else codes
        )

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        """Return the class of the form; that of a new endpoint has its endpoint name in place of the device id."""
        form = super().get_form(request, obj, change=change, **options)
        if obj is None and "endpoint_name" in form.base_fields:
            form.base_fields["endpoint_name"].required = True
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Return the fields that cannot be changed: those of any device, and the registration."""
        own = ("endpoint_name", *REGISTRATION) if obj else REGISTRATION
        return (*super().get_readonly_fields(request, obj), *own)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the sections of the form, with that of the registration after the state."""
        found = []
        for title, options in super().get_fieldsets(request, obj):
            fields = [name for name in options["fields"] if name not in (*REGISTRATION, "endpoint_name")]
            if title == "Identity":
                fields = ["endpoint_name", *(name for name in fields if obj or name != "device_id")]
            if fields:
                found.append((title, {**options, "fields": fields}))
            if title == "State" and obj:
                found.append(("Registration", {"fields": REGISTRATION}))
        return found


class EndpointMessageAdmin(MessageAdmin):
    """The page of messages of endpoints."""

    def noun(self, count: int = 1) -> str:
        return "LwM2M message" if count == 1 else "LwM2M messages"


texts.register(
    Endpoint,
    {
        "endpoint_name": "The name with which it registers, 1 to 255 characters. Its device id is made from it.",
        "registered": "Whether it is registered.",
        "registration_id": "The id that the server gave to its registration.",
        "registered_at": "The time of its registration, by the clock of the server.",
        "last_registration": "The time of its last registration or update.",
        "lifetime": "Without an update for so long, its registration ends.",
        "lwm2m_version": "The version of LwM2M that it speaks.",
        "binding": "The transports that it uses: U is UDP, T is TCP, S is SMS, N is not IP; Q is queue mode.",
        "queue_mode": "Whether it sleeps between its messages.",
        "sleeping": "Whether it said that it sleeps, and has sent nothing since.",
    },
)
texts.register(EndpointMessage, {"device": "The endpoint that sent it."})


sidebar.register(
    "LwM2M endpoints", "admin:lwm2m_endpoint_changelist", group=sidebar.FLEET, icon="account_tree", order=40
)
