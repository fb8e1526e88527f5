"""The pages of brokers. `manage.py create_broker` creates one, and prints its token once."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from authsvc.models import Broker
from devicehub.admin.base import ModelAdmin


@admin.register(Broker)
class BrokerAdmin(ModelAdmin):
    list_display = ("name", "is_active", "dialects", "networks", "created_at")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # `manage.py create_broker` does it, and prints the token once.
