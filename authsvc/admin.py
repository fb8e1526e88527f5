"""Admin pages for brokers, accounts, grants and denials. Commands create tokens and passwords."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from authsvc.models import Account, Broker, Denial, Grant
from authsvc.secret_columns import HidesSecrets


@admin.register(Broker)
class BrokerAdmin(HidesSecrets, ModelAdmin):  # type: ignore[misc]
    list_display = ("name", "is_active", "dialects", "networks", "created_at")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # `manage.py create_broker` does it, and prints the token once.


@admin.register(Account)
class AccountAdmin(HidesSecrets, ModelAdmin):  # type: ignore[misc]
    list_display = ("username", "is_active", "is_superuser", "created_at")
    readonly_fields = ("username",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # `manage.py create_account` does it, and prints the password once.


@admin.register(Grant)
class GrantAdmin(HidesSecrets, ModelAdmin):  # type: ignore[misc]
    list_display = ("subject", "effect", "actions", "filter", "note")
    list_filter = ("effect", "actions")
    search_fields = ("subject", "filter")


@admin.register(Denial)
class DenialAdmin(HidesSecrets, ModelAdmin):  # type: ignore[misc]
    list_display = ("last_at", "username", "action", "summary", "reason", "count", "dialect", "address")
    list_filter = ("reason", "action", "dialect")
    search_fields = ("username", "topic")

    @admin.display(description="topic", ordering="topic")
    def summary(self, denial: Denial) -> str:
        return denial.summary

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
