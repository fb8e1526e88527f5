"""Entries of the audit for what the admin saves and deletes: the changed columns and lists, without secrets.

An action that a page calls records itself; the page then adds nothing about the same. Users and roles are recorded by
`devicehub/rights.py`, in every admin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse

from authsvc import audit
from devicehub import rights
from devicehub.models import BaseDevice, DeviceGroup, DeviceTag
from devicehub.provisioning import key_of

# The words of actions begin with these, by the label of the model.
WORDS = {
    "authsvc.Account": "account",
    "authsvc.Broker": "broker",
    "authsvc.Grant": "grant",
    "devicehub.ApiKey": "program_key",
    "devicehub.DeviceGroup": "group",
}
# The columns of a device whose change has a word of its own.
OF_DEVICES = {"site": "device_moved", "password_expires_at": "expiry_set"}
# Columns that follow from other changes.
IGNORED = frozenset({"created_at", "updated_at", "credentials_changed_at"})

Lists = dict[str, list[str]]


def word_of(model: type[models.Model]) -> str:
    """Return the first part of the words for *model*, such as `grant`; empty if its changes are not recorded."""
    if issubclass(model, BaseDevice):
        return "device"
    return WORDS.get(model._meta.label, "")


def key(row: models.Model) -> str:
    """Return the name of *row* in the audit."""
    if isinstance(row, BaseDevice):
        return key_of(row)
    if isinstance(row, (Group, get_user_model())):
        return rights.key(row)
    if isinstance(row, DeviceGroup):
        return f"group/{row.slug}"
    own = getattr(row, "key", None)
    return str(own) if own else f"{word_of(type(row))}/{row.pk}"


def covers(row: models.Model) -> bool:
    """Return whether the audit has entries about *row* under its key."""
    return is_recorded(type(row))


def is_recorded(model: type[models.Model]) -> bool:
    """Return whether the audit has entries about rows of *model*."""
    return bool(word_of(model)) or issubclass(model, (Group, get_user_model()))


class Audited:
    """A mixin for a ModelAdmin that records saves and deletions of models with a word."""

    model: Any

    def changeform_view(self, *args: Any, **options: Any) -> HttpResponse:
        """Show or save the form. Entries of actions that it calls are noted, so that none is written twice."""
        with audit.watching():
            answer: HttpResponse = super().changeform_view(*args, **options)  # type: ignore[misc]
            return answer

    def changelist_view(self, *args: Any, **options: Any) -> HttpResponse:
        """Show the list, or save the columns that can be edited there."""
        with audit.watching():
            answer: HttpResponse = super().changelist_view(*args, **options)  # type: ignore[misc]
            return answer

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        """Return the object of *form*, not saved, and note its row as it is."""
        found = super().save_form(request, form, change)  # type: ignore[misc]
        row = self.model._base_manager.filter(pk=found.pk).first() if change and found.pk else None
        form.audited = None if row is None else (audit.values(row), _lists(row))
        return found

    def save_related(self, request: HttpRequest, form: Any, *args: Any, **options: Any) -> None:
        """Save the rows of other tables that belong to the object, and record the differences."""
        super().save_related(request, form, *args, **options)  # type: ignore[misc]
        if word_of(self.model):
            row = self.model._base_manager.filter(pk=form.instance.pk).first()
            if row is not None:
                _record(row, form.audited)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete the object, and record it."""
        with audit.watching(), transaction.atomic():
            deleted = _Deleted([obj])
            super().delete_model(request, obj)  # type: ignore[misc]
            deleted.record()

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete the objects, and record each."""
        with audit.watching(), transaction.atomic():
            deleted = _Deleted(queryset)
            super().delete_queryset(request, queryset)  # type: ignore[misc]
            deleted.record()


class _Deleted:
    """The rows that are about to be deleted. A device records its removal itself."""

    def __init__(self, rows: Iterable[Any]) -> None:
        found = [(row, word_of(type(row))) for row in rows]
        self._changes = [
            (f"{word}_deleted", audit.Change(key(row), _shown(audit.values(row))))
            for row, word in found
            if word and word != "device"
        ]

    def record(self) -> None:
        for action, change in self._changes:
            _once(action, change)


def _record(row: models.Model, before: tuple[dict[str, Any], Lists] | None) -> None:
    """Record the differences of *row* from *before*; of a new row, all values."""
    word, after, lists = word_of(type(row)), audit.values(row), _lists(row)
    if before is None:
        _once(f"{word}_created", audit.Change(key(row), None, {**_shown(after), **lists}))
        return
    old, new = audit.difference(_shown(before[0]), _shown(after))
    for name, action in OF_DEVICES.items() if word == "device" else ():
        if name in new:
            _once(action, audit.Change(key(row), {name: old.pop(name)}, {name: new.pop(name)}))
    if word == "device" and "is_active" in new:
        old.pop("is_active")
        _once("device_enabled" if new.pop("is_active") else "device_disabled", audit.Change(key(row)))
    removed, added = _changed(before[1], lists)
    if new or removed or added:
        _once(f"{word}_changed", audit.Change(key(row), {**old, **removed}, {**new, **added}))


def _once(action: str, change: audit.Change) -> None:
    """Record *change* unless the action that the page called has recorded it."""
    if not audit.was_recorded(action, change.key):
        audit.record(action, change.key, before=change.before, after=change.after)


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in IGNORED}


def _changed(before: Lists, after: Lists) -> tuple[Lists, Lists]:
    """Return the entries that were removed from lists, and those that were added."""
    return _only(before, after), _only(after, before)


def _only(one: Lists, other: Lists) -> Lists:
    differences = ((name, sorted(set(found) - set(other[name]))) for name, found in one.items())
    return {name: found for name, found in differences if found}


def _lists(row: models.Model) -> Lists:
    """Return the lists of other tables that belong to *row* and decide on rights."""
    return {name: sorted(read(row)) for name, read in _LISTS.get(word_of(type(row)), {}).items()}


def _tags(device: Any) -> Iterable[str]:
    return DeviceTag.objects.filter(device_key=key_of(device)).values_list("tag", flat=True)


_LISTS: dict[str, dict[str, Callable[[Any], Iterable[str]]]] = {
    "device": {"tags": _tags},
    "group": {"members": lambda group: group.members.values_list("device_key", flat=True)},
}
