"""The pages of commands."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from devicehub import commands
from devicehub.admin.base import RecordAdmin
from devicehub.commands import description
from devicehub.models import DeviceCommand

# The times of a command, in the order of its states.
STEPS = ("queued_at", "sent_at", "acknowledged_at", "answered_at", "ended_at")


@admin.register(DeviceCommand)
class DeviceCommandAdmin(RecordAdmin):
    list_display = ("queued_at", "device_key", "name", "state", "attempts", "deadline", "why")
    list_filter = ("state", "name")
    search_fields = ("=id", "device_key")
    fieldsets = (
        (None, {"fields": ("id", "device_key", "name", "payload")}),
        ("Progress", {"fields": ("state", "why", "attempts", "next_attempt", "deadline", *STEPS)}),
        ("Answer", {"fields": ("result", "response")}),
    )
    actions = ("cancel",)
    change_form_outer_before_template = "devicehub/_cancel.html"

    @admin.display(description="Why")
    def why(self, command: DeviceCommand) -> str:
        return description.reason(command)

    @admin.display(description="Next attempt")
    def next_attempt(self, command: DeviceCommand) -> datetime | None:
        """Return the time of the next attempt; None if the command only waits for its deadline."""
        return command.due_at if command.due_at != command.deadline else None

    @admin.display(description="Result")
    def result(self, command: DeviceCommand) -> str:
        return "" if command.result is None else json.dumps(command.result, ensure_ascii=False)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        context = {**(extra_context or {}), "may_cancel": self.has_cancel_permission(request)}
        answer: HttpResponse = super().change_view(request, object_id, form_url, context)
        return answer

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("devicehub.change_devicecommand"))

    @admin.action(description="Cancel selected commands", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[DeviceCommand]) -> None:
        """Cancel the commands that are still queued, and report how many were not."""
        chosen = list(queryset)
        cancelled = sum(commands.cancel(command) for command in chosen)
        self.message_user(request, f"{cancelled} cancelled.")
        if cancelled < len(chosen):
            late = (
                f"{left} not cancelled: they had ended, are being sent or may have arrived."
                if (left := len(chosen) - cancelled) > 1
                else "1 not cancelled: it had ended, is being sent or may have arrived."
            )
            self.message_user(request, late, messages.WARNING)
