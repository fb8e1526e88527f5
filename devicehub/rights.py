"""Entries of the audit for users, roles and the sites of users, in every admin and in the shell.

Their models are Django's, so no action of ours is between a page and the row: receivers of signals write the entries.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import models
from django.db.models import signals

from authsvc import audit
from devicehub.models import SiteScope

# The columns that decide who a user is, and on rights.
OF_USERS = ("username", "email", "is_active", "is_staff", "is_superuser")
_BEFORE = "_audited_before"


def watch() -> None:
    """Connect the receivers."""
    user: Any = get_user_model()
    for model in (user, Group, SiteScope):
        signals.pre_save.connect(_before_save, sender=model, dispatch_uid=f"devicehub.rights.{model}")
        signals.post_save.connect(_after_save, sender=model, dispatch_uid=f"devicehub.rights.{model}")
        signals.post_delete.connect(_after_delete, sender=model, dispatch_uid=f"devicehub.rights.{model}")
    relations = [Group.permissions, *(getattr(user, name, None) for name in ("groups", "user_permissions"))]
    for relation in filter(None, relations):
        signals.m2m_changed.connect(
            _after_list, sender=relation.through, dispatch_uid=f"devicehub.rights.{relation.through}"
        )


def key(row: Any) -> str:
    """Return the name in the audit of a user, of a role, or of the user that sites belong to."""
    if isinstance(row, Group):
        return f"role/{row.name}"
    return f"user/{(row.user if isinstance(row, SiteScope) else row).get_username()}"


def _word(row: models.Model) -> str:
    return "role" if isinstance(row, Group) else "user"


def _values(row: Any) -> dict[str, Any]:
    if isinstance(row, SiteScope):
        return {"sites": list(row.sites)}
    names = ("name",) if isinstance(row, Group) else OF_USERS
    return {name: getattr(row, name) for name in names if hasattr(row, name)}


def _before_save(instance: Any, raw: bool, update_fields: Collection[str] | None, **_: Any) -> None:
    """Note the row as it is. A sign-in, and a better hash after it, save a column alone: they change no right.

    During the save of a better hash Django has no clear text in `_password`; after set_password() it has.
    """
    instance.__dict__.pop(_BEFORE, None)
    is_new_password = getattr(instance, "_password", None) is not None
    quiet = {"last_login"} if is_new_password else {"last_login", "password"}
    if not raw and not (update_fields and quiet.issuperset(update_fields)):
        row = type(instance)._base_manager.filter(pk=instance.pk).first() if instance.pk else None
        instance.__dict__[_BEFORE] = row


def _after_save(
    instance: Any, created: bool, using: str, update_fields: Collection[str] | None, **_: Any
) -> None:
    if _BEFORE not in instance.__dict__:
        return
    row, saved = instance.__dict__.pop(_BEFORE), update_fields
    after = {name: value for name, value in _values(instance).items() if not saved or name in saved}
    before = {} if row is None else _values(row)
    old, new = audit.difference(before, after)
    is_stored = row is not None and (not saved or "password" in saved)
    if is_stored and getattr(row, "password", None) != getattr(instance, "password", None):
        audit.record("user_password_changed", key(instance), using=using)
    if new:
        word = f"{_word(instance)}_{'created' if created else 'changed'}"
        action = "sites_changed" if isinstance(instance, SiteScope) else word
        audit.record(action, key(instance), before=old if row else None, after=new, using=using)


def _after_delete(instance: Any, using: str, origin: Any = None, **_: Any) -> None:
    if isinstance(instance, SiteScope):
        if not _is_of_users(origin):  # The sites of a deleted user end with the user.
            audit.record("sites_changed", key(instance), before=_values(instance), using=using)
        return
    audit.record(f"{_word(instance)}_deleted", key(instance), before=_values(instance), using=using)


def _is_of_users(origin: Any) -> bool:
    """Return whether *origin*, from which a deletion began, is a user or a query set of users."""
    return issubclass(origin.model if isinstance(origin, models.QuerySet) else type(origin), get_user_model())


def _after_list(
    sender: Any, instance: Any, action: str, reverse: bool, model: Any, pk_set: Any, using: str, **_: Any
) -> None:
    """Record the entries that a list of roles or permissions lost or got."""
    if action not in ("post_add", "post_remove", "pre_clear"):
        return
    given = model._base_manager.using(using)
    rows = given.filter(pk__in=pk_set) if pk_set is not None else _of(sender, instance, given, reverse)
    if reverse:  # From the side of the role or the permission: each row is that of a user or a role.
        for row in rows:
            _record_list(row, [instance], added=action == "post_add", using=using)
    elif found := list(rows):
        _record_list(instance, found, added=action == "post_add", using=using)


def _of(through: Any, instance: Any, given: Any, reverse: bool) -> Any:
    """Return the rows of *given* that *instance* has now, before all of them are removed."""
    mine, other = (type(instance)._meta.model_name, given.model._meta.model_name)
    pks = through._base_manager.filter(**{f"{mine}_id": instance.pk}).values(f"{other}_id")
    return given.filter(pk__in=pks)


def _record_list(row: Any, entries: list[Any], *, added: bool, using: str) -> None:
    name = "permissions" if isinstance(entries[0], Permission) else "roles"
    texts = [
        f"{entry.content_type.app_label}.{entry.codename}" if isinstance(entry, Permission) else entry.name
        for entry in entries
    ]
    change = {"after" if added else "before": {name: sorted(texts)}}
    audit.record(f"{_word(row)}_changed", key(row), using=using, **change)
