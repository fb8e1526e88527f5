"""The pages of denials."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from authsvc.models import Denial
from devicehub.admin.base import ModelAdmin


@admin.register(Denial)
class DenialAdmin(ModelAdmin):
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
