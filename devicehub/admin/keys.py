"""The list of the API keys of all people: which programs act as them, and the end of a key."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html_join

from devicehub import api_keys
from devicehub.admin import cells
from devicehub.admin.base import RecordAdmin
from devicehub.admin.lists import ChoiceFilter
from devicehub.models import ApiKey


class ValidFilter(ChoiceFilter):
    title, parameter_name = "validity", "validity"
    options = {
        "valid": ("Valid", lambda: Q(expires_at=None) | Q(expires_at__gt=timezone.now())),
        "expired": ("Expired", lambda: Q(expires_at__lte=timezone.now())),
        "unused": ("Never used", lambda: Q(last_used_at=None)),
    }


@admin.register(ApiKey)
class ApiKeyAdmin(RecordAdmin):
    """Keys are made on the account page of their owner alone, and changed nowhere: here they end."""

    list_display = ("name", "whose", "begins", "listed", "site", "expires", "last_used_at", "created_at")
    list_filter = (ValidFilter,)
    list_select_related = ("owner",)
    search_fields = ("name", "owner__username", "start")
    search_help_text = "Name, username of the owner, or the first characters of the key"
    fields = ("name", "whose", "begins", "listed", "site", "expires_at", "last_used_at", "created_at")
    readonly_fields = ("whose", "begins", "listed", "last_used_at", "created_at")
    empty_text = "There are no API keys yet. Each user makes their own on My account."

    @admin.display(description="Owner", ordering="owner__username")
    def whose(self, key: ApiKey) -> str:
        return str(key.owner.get_username())

    @admin.display(description="Begins with", ordering="start")
    def begins(self, key: ApiKey) -> str:
        return cells.code(f"{key.start}…")

    @admin.display(description="Scopes")
    def listed(self, key: ApiKey) -> str:
        return format_html_join(" ", "{}", ((cells.code(scope),) for scope in key.scopes))

    @admin.display(description="Expires", ordering="expires_at")
    def expires(self, key: ApiKey) -> str:
        if key.has_expired():
            return cells.toned("expires", "warn", "Expired")
        return cells.until(key.expires_at) if key.expires_at else "never"

    def delete_model(self, request: HttpRequest, obj: ApiKey) -> None:
        api_keys.delete(obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for key in queryset:
            api_keys.delete(key)
