"""The columns with secrets, or hashes or digests of them. Admin, REST and exports use this list to leave them out."""

from __future__ import annotations

import functools
from typing import Any

from django.apps import apps
from django.db import models

OF_DJANGO = frozenset({"password", "session_key", "session_data"})
# Columns of other apps with names so general that only their own model counts.
OF_OTHERS = {"otp_totp.totpdevice": frozenset({"key"}), "otp_static.statictoken": frozenset({"token"})}
AS_A_WHOLE = frozenset({"exact", "in", "isnull"})


class SecretField(models.CharField):  # type: ignore[type-arg]
    """A text column that forms leave out and queries can only compare as a whole.

    With a pattern or a range, a user who can filter a list could read the column letter by letter.
    In migrations it is a CharField.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._said_editable = options.get("editable", True)
        super().__init__(*args, **{**options, "editable": False})

    def deconstruct(self) -> Any:
        """Return the field as a CharField, for migrations."""
        name, _, args, options = super().deconstruct()
        if self._said_editable:
            del options["editable"]
        return name, "django.db.models.CharField", args, options

    def get_lookup(self, lookup_name: str) -> Any:
        """Return a lookup that compares the whole value, or None for others."""
        return super().get_lookup(lookup_name) if lookup_name in AS_A_WHOLE else None

    def get_transform(self, lookup_name: str) -> Any:
        """Return None: transforms would read parts of the value."""
        return None


def of(model: type[models.Model]) -> frozenset[str]:
    """Return the names of the secret columns of *model*."""
    return _named(model) | OF_OTHERS.get(model._meta.label_lower, frozenset())


def _named(model: type[models.Model]) -> frozenset[str]:
    return frozenset(
        field.name
        for field in model._meta.concrete_fields
        if isinstance(field, SecretField) or field.name in OF_DJANGO
    )


def is_secret(path: str) -> bool:
    """Return whether *path*, such as `device__api_key__regex` or `-api_key`, names a secret column of any model."""
    return not _names().isdisjoint(path.lstrip("-+").split("__"))


@functools.cache
def _names() -> frozenset[str]:
    return OF_DJANGO.union(*(_named(model) for model in apps.get_models(include_auto_created=True)))


class HidesSecrets:
    """A mixin for a ModelAdmin, to be listed first: filters and references cannot use a secret column."""

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Return whether a list may be filtered by *lookup*."""
        allowed: bool = super().lookup_allowed(lookup, value, request)  # type: ignore[misc]
        return allowed and not is_secret(lookup)

    def to_field_allowed(self, request: Any, to_field: str) -> bool:
        """Return whether a popup may refer to rows by *to_field*."""
        allowed: bool = super().to_field_allowed(request, to_field)  # type: ignore[misc]
        return allowed and not is_secret(to_field)
