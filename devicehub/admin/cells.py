"""The cells of lists: states, ids, codes, numbers, times and links, in the marks of admin.css."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import models
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from authsvc.models import Account, Broker, Grant
from devicehub import provisioning
from devicehub.admin import texts
from devicehub.dashboard import display
from devicehub.kinds.registry import UnknownKey, registry
from devicehub.kinds.units import figure
from devicehub.models import ApiKey, BaseDevice, DeviceGroup
from devicehub.states import State

EMPTY = "–"
# Columns with words of a machine: in its face, and in the case in which they came.
MACHINE_WORDS = frozenset(
    {
        *("address", "client_id", "correlation_id", "dialect", "filter", "firmware_version", "group"),
        *("mqtt_client_id", "mqtt_username", "object_key", "reason", "rule", "slug", "tag", "topic"),
    }
)
TO_THE_SECOND = frozenset(
    {"at", "deadline", "queued_at", "received_at", "timestamp", "valid_from", "valid_until"}
)
# The list that shows an object, and the column that names it there, by the first part of its key.
OBJECTS: dict[str, tuple[type[Any], str]] = {
    "account": (Account, "username"),
    "api_key": (ApiKey, "id"),
    "broker": (Broker, "name"),
    "grant": (Grant, "id"),
    "group": (DeviceGroup, "slug"),
    "role": (Group, "name"),
    "user": (get_user_model(), "username"),
}
KEYS = frozenset({"device_key", "principal"})
FOUND = "_devicehub_found"  # The attribute of a row with the keys of its list that name a device.
NUMBER = "number_"  # The names of columns with numbers begin so; admin.css puts those to the right.


def title(row: Any) -> str:
    """Return the name of *row* in titles: of a device its id, and its name if it has one."""
    if isinstance(row, BaseDevice):
        return f"{row.device_id}, {row.name}" if row.name else row.device_id
    return str(row)


def state(found: State) -> SafeString:
    """Return the glyph and the word of a state."""
    return toned(found.glyph, found.tone, found.word)


def toned(glyph: str, tone: str, word: str) -> SafeString:
    """Return *word* with a glyph of icons.svg, in a tone: good, warn, bad, busy or off."""
    return format_html(
        '<span class="dh-state dh-{}"><svg viewBox="0 0 12 12" aria-hidden="true"><use href="{}#g-{}"/></svg>{}</span>',
        tone,
        static("devicehub/icons.svg"),
        glyph,
        word,
    )


def identifier(text: str) -> SafeString:
    """Return an id as a machine reads it."""
    return format_html('<span class="dh-id">{}</span>', text)


def code(text: Any) -> str:
    """Return a word of a machine, such as a reason or a topic."""
    return format_html('<span class="dh-code">{}</span>', text) if text not in (None, "") else EMPTY


def number(value: Any) -> str:
    """Return a number with separators, at the right of its column."""
    if value is None:
        return EMPTY
    text = figure(value) if isinstance(value, float) else f"{value:,}"
    return format_html('<span class="dh-number">{}</span>', text)


def when(moment: datetime | None, never: str = EMPTY) -> str:
    """Return how long ago *moment* is, with the exact time as its title."""
    return never if moment is None else display.relative(moment)


def until(moment: datetime | None) -> str:
    """Return *moment* to the second, for rows that differ by seconds, and for times that may lie ahead."""
    return EMPTY if moment is None else display.exact(moment)


def find_devices(rows: Iterable[Any], column: str) -> None:
    """Note in each of *rows* which of the keys in their *column* name a device, by a query for each type."""
    found = provisioning.existing({getattr(row, column) for row in rows})
    for row in rows:
        setattr(row, FOUND, found)


def device_of(row: Any, column: str) -> str:
    """Return the key in *column* of *row* as device() does, without a query if find_devices() saw the row."""
    return device(getattr(row, column), getattr(row, FOUND, None))


def device(key: str, found: Collection[str] | None = None) -> str:
    """Return *key* as a link to the page of its device, or as it is if there is no such device.

    *found* contains the key if the device exists; without it a query tells.
    """
    try:
        kind, device_id = registry.resolve(key)
    except UnknownKey:
        return code(key)
    if key not in (provisioning.existing([key]) if found is None else found):
        return code(key)
    url = named_url(kind.device_model, device_id)
    return format_html('<a class="dh-id" href="{}">{}</a>', url, device_id) if url else code(key)


def named_url(model: type[models.Model], device_id: str) -> str:
    """Return the address that leads to the page of the device *device_id*; "" if the admin does not show the model."""
    meta = model._meta
    try:
        return reverse(f"admin:{meta.app_label}_{meta.model_name}_named", args=[device_id])
    except NoReverseMatch:
        return ""


def rotation_url(number: int) -> str:
    """Return the address of the page of the rotation *number*; "" if the admin does not show rotations."""
    try:
        return reverse("admin:devicehub_rotation_change", args=[number])
    except NoReverseMatch:
        return ""


def list_url(model: type[models.Model], query: str = "") -> str:
    """Return the address of the list of *model*; "" if the admin does not show the model."""
    meta = model._meta
    try:
        return reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist") + query
    except NoReverseMatch:
        return ""


def column(model: type[models.Model], name: Any, *, is_first: bool) -> Any:
    """Return the column *name* of a list: of a field of *model* a function with its label and look, else *name*."""
    field = next((f for f in model._meta.concrete_fields if f.name == name), None)
    if field is None or field.is_relation:
        return name
    shown = _shown(field, is_first)
    is_boolean = isinstance(field, models.BooleanField)

    @admin.display(description=texts.label(field), ordering=name, boolean=is_boolean or None)
    def cell(row: Any) -> Any:
        value = getattr(row, name)
        if shown is device:
            return device_of(row, name)
        if shown is not None:
            return shown(value)
        word = getattr(row, f"get_{name}_display")() if field.choices else value
        return EMPTY if word == "" else word

    cell.__name__ = f"{NUMBER}{name}" if shown is number else str(name)
    return cell


def _shown(field: models.Field[Any, Any], is_first: bool) -> Callable[[Any], str] | None:
    """Return the function that makes a cell of a value of *field*; None for Django's own cell."""
    if isinstance(field, models.DateTimeField):
        return until if field.name in TO_THE_SECOND else when
    if field.name == "device_id":
        return identifier
    if field.name in KEYS and not is_first:
        return device
    if field.name in MACHINE_WORDS or field.name in KEYS:
        return code
    numeric = (models.IntegerField, models.FloatField)
    return number if isinstance(field, numeric) and not field.choices else None


def changed(key: str, found: Collection[str] | None = None) -> str:
    """Return the *key* of a changed object as a link to the page or the list that shows its object.

    *found* contains the key if it is that of a device that exists; without it a query tells.
    """
    kind, _, name = key.partition("/")
    if kind == "rotation" and name.isdecimal():
        url = rotation_url(int(name))
    elif kind in OBJECTS:
        model, column = OBJECTS[kind]
        url = list_url(model, f"?{urlencode({column: name})}")
    else:
        return device(key, found)
    return format_html('<a class="dh-id" href="{}">{}</a>', url, key) if url else code(key)
