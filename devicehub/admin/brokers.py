"""The pages of brokers: register one in the browser, rotate and revoke its token, and its use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Max, QuerySet, Sum
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import slugify

from authsvc import broker_tokens
from authsvc.brokers import BY_DIALECT, by_dialect
from authsvc.brokers.base import InvalidAddress, host_of
from authsvc.conf import settings
from authsvc.credentials import UNTIL_USED, end_of_old
from authsvc.models import Broker
from devicehub.admin import cells
from devicehub.admin.once import Act, Made, Shown, WithSecret
from devicehub.credentials.forms import ReasonForm, RotateForm

# Uses are written once a minute, so a broker that asked longer ago has stopped, or has no clients.
ASKING = timedelta(minutes=5)
FILE = re.compile(r"[\w-]+\.conf")
ADDRESS = "The address at which this broker reaches the service; it becomes part of its configuration."


def people_s_names() -> list[tuple[str, str]]:
    """Return the dialects with the names of their brokers."""
    return [(broker.dialect, broker.name) for broker in by_dialect().values()]


class AddressField(forms.CharField):
    """The address of this service, for the generated configuration of a broker."""

    def __init__(self) -> None:
        attrs = {"class": "mono", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
        super().__init__(
            label="Address of this service", max_length=200, help_text=ADDRESS, widget=forms.TextInput(attrs)
        )

    def clean(self, value: Any) -> str:
        """Return the address. Raise ValidationError."""
        found: str = super().clean(value)
        try:
            host_of(found)
        except InvalidAddress as error:
            raise ValidationError("Write http://host:8000 or https://host, without more.") from error
        return found


class BrokerForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a new broker."""

    address = AddressField()


class RotateTokenForm(RotateForm):
    """A new token, and the end of the old one."""

    field_order = ("ends", "until", "address", "reason")
    address = AddressField()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["ends"].label = "The old token ends"
        self.fields["until"].help_text = "Both tokens are valid until then."
        self.order_fields(self.field_order)


def _rotate(broker: Broker, form: RotateTokenForm) -> Made:
    had, was_unused = not broker.is_revoked, broker.awaits_first_use()
    until = form.valid_until
    token = broker_tokens.rotate_token(broker, valid_until=until)
    ends = end_of_old(until, "token", was_unused=was_unused) if had else ""
    return Made(token, form.cleaned_data, ends)


def _end_overlap(broker: Broker, form: forms.Form) -> str:
    broker_tokens.end_previous_token(broker)
    return "The old token has ended."


def _revoke(broker: Broker, form: forms.Form) -> str:
    broker_tokens.revoke_tokens(broker)
    return f"The tokens of {broker.name} have ended: each of its questions is refused."


ACTS = (
    Act(
        "rotate",
        "Rotate the token",
        "The page that follows shows the new token and the configuration with it, once.",
        "Rotate token",
        _rotate,
        RotateTokenForm,
        icon="rotate",
        makes_secret=True,
        first="Make a token",
    ),
    Act(
        "end_overlap",
        "End the old token",
        "A broker that does not have the new token can then no longer ask.",
        "End the old token",
        _end_overlap,
        ReasonForm,
        Broker.has_overlap,
    ),
    Act(
        "revoke",
        "Revoke",
        "Its tokens end at once. Each of its questions is refused, so that none of its clients can log in, publish or "
        "subscribe. To come back, make a new token.",
        "Revoke its tokens",
        _revoke,
        ReasonForm,
        lambda broker: not broker.is_revoked,
        ends=True,
    ),
)


@admin.register(Broker)
class BrokerAdmin(WithSecret):
    list_display = ("name", "state", "software", "last_asked", "number_of_questions", "places", "created_at")
    list_filter = ("is_active",)
    search_fields = ("name",)
    readonly_fields = ("created_at", "token_changed_at")
    boxes = {"dialects": people_s_names}
    lines = ("networks",)
    empty_text = (
        "No broker may ask yet, so no client can log in. Add one: the page shows its token and configuration."
    )
    acts = ACTS
    panel_template = "devicehub/_broker.html"
    secret_name = "token"  # noqa: S105 - A word.

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        found: QuerySet[Any] = rows.annotate(asked_at=Max("uses__last_at"), asked=Sum("uses__count"))
        return found

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        """Return the class of the form; for a new broker it also has the address for the configuration."""
        if obj is None:
            options["form"] = BrokerForm
        options["labels"] = {"dialects": "Software"}
        form = super().get_form(request, obj, change=change, **options)
        if obj is None and "address" in form.base_fields:
            field, name = form.base_fields["address"], form.base_fields["name"]
            field.initial, field.widget = address_of(request), copy(name.widget)
        return form

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        limits = ("dialects", "networks", "is_active")
        if obj is None:
            return [(None, {"fields": ("name", *limits, "address")})]
        return [(None, {"fields": ("name", *limits)}), ("Dates", {"fields": self.readonly_fields})]

    def save_model(self, request: HttpRequest, obj: Broker, form: Any, change: bool) -> None:
        """Save the broker by the actions of broker_tokens, which record it."""
        if change:
            broker_tokens.change_broker(obj, **{name: getattr(obj, name) for name in broker_tokens.FIELDS})
            return
        super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Broker) -> None:
        broker_tokens.delete_broker(obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for broker in queryset:
            broker_tokens.delete_broker(broker)

    def create(self, row: Broker, typed: Mapping[str, Any]) -> str:
        """Save the new broker and return its token."""
        return broker_tokens.add(row)

    def initial(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the address of this service for the forms."""
        return {"address": address_of(request)}

    def has_secret(self, row: Broker) -> bool:
        return not row.is_revoked

    def shown(self, request: HttpRequest, row: Broker, made: Made) -> Shown:
        """Return the token of *row* with the configuration for each of its dialects."""
        url = made.typed["address"]
        hint = ""
        if not settings.has_url:
            hint = f"The configuration has the address {url}. The setting AUTHSVC_URL fills in another one."
        values = [("name", "Broker", row.name, False), ("token", "Token", made.secret, True)]
        return Shown(
            f"Put this into {row.name}", "broker", values, _files(row, url.rstrip("/"), made.secret), hint
        )

    def about(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the state of a broker, its tokens and its uses."""
        uses = list(row.uses.order_by("-last_at"))
        current = max((use.current_at for use in uses if use.current_at), default=None)
        previous = max((use.previous_at for use in uses if use.previous_at), default=None)
        changed = row.token_changed_at
        return {
            "broker": row,
            "state": _state(row, max((use.last_at for use in uses), default=None)),
            "uses": uses,
            "asked": sum(use.count for use in uses),
            "since": min((use.first_at for use in uses), default=None),
            "software": _software(row),
            "overlap": row.has_overlap(),
            "until": None if row.previous_token_until == UNTIL_USED else row.previous_token_until,
            "new_used_at": current if current and changed and current >= changed else None,
            "old_used_at": previous if previous and changed and previous >= changed else None,
        }

    @admin.display(description="State")
    def state(self, broker: Any) -> str:
        return cells.toned(*_state(broker, broker.asked_at))

    @admin.display(description="Software")
    def software(self, broker: Broker) -> str:
        return ", ".join(_software(broker))

    @admin.display(description="Last asked", ordering="asked_at")
    def last_asked(self, broker: Any) -> str:
        return cells.when(broker.asked_at, "never")

    @admin.display(description="Questions", ordering="asked")
    def number_of_questions(self, broker: Any) -> str:
        return cells.number(broker.asked or 0)

    @admin.display(description="Networks")
    def places(self, broker: Broker) -> str:
        return ", ".join(broker.networks) or "from anywhere"


def address_of(request: HttpRequest) -> str:
    """Return the address of this service: the setting, or that under which the page was opened."""
    return settings.url if settings.has_url else request.build_absolute_uri("/").rstrip("/")


def _software(broker: Broker) -> list[str]:
    """Return the names of the brokers whose dialects *broker* may use."""
    names = dict(people_s_names())
    return [names.get(dialect, dialect) for dialect in broker.dialects] or ["any"]


def _state(broker: Broker, asked_at: datetime | None) -> tuple[str, str, str]:
    """Return glyph, tone and word of the state of a broker that asked last at *asked_at*."""
    if not broker.is_active:
        return "disabled", "off", "Disabled"
    if broker.is_revoked:
        return "revoked", "bad", "Revoked"
    if asked_at is None:
        return "never", "off", "Never asked"
    if asked_at < timezone.now() - ASKING:
        return "silent", "warn", "Stopped asking"
    return "connected", "good", "Asking"


def _files(broker: Broker, url: str, token: str) -> Sequence[Mapping[str, str]]:
    """Return the configuration for each dialect of *broker*, as files."""
    found = []
    known = by_dialect()
    for dialect in broker.dialects or list(BY_DIALECT):
        if dialect in known:
            text = known[dialect].configuration(url, token)
            own = FILE.search(text)
            name = f"{slugify(broker.name) or 'broker'}-{own.group() if own else dialect + '.txt'}"
            found.append({"id": dialect, "label": known[dialect].name, "name": name, "text": text})
    return found
