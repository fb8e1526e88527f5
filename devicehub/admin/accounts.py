"""The pages of service accounts. `manage.py create_account` creates one, and prints its password once."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from authsvc.models import Account
from devicehub.admin.base import ModelAdmin


@admin.register(Account)
class AccountAdmin(ModelAdmin):
    list_display = ("username", "is_active", "is_superuser", "created_at")
    readonly_fields = ("username",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # `manage.py create_account` does it, and prints the password once.
