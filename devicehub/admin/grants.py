"""The pages of grants."""

from __future__ import annotations

from django.contrib import admin

from authsvc.models import Grant
from devicehub.admin.base import ModelAdmin


@admin.register(Grant)
class GrantAdmin(ModelAdmin):
    list_display = ("subject", "effect", "actions", "filter", "note")
    list_filter = ("effect", "actions")
    search_fields = ("subject", "filter")
