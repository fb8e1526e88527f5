"""The base of the admin's pages: unfold's where a project uses it, otherwise Django's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin

from authsvc.secret_columns import HidesSecrets

if not TYPE_CHECKING and apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as Foundation
else:
    Foundation = admin.ModelAdmin


class ModelAdmin(HidesSecrets, Foundation):  # type: ignore[type-arg]
    """A page of the admin that shows no secret column and does not count whole tables."""

    show_full_result_count = False


class RecordAdmin(ModelAdmin):
    """The admin of rows that the system wrote. They can be read, not changed."""

    def has_add_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False
