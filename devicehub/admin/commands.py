"""The pages of commands."""

from __future__ import annotations

import json
from typing import ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string

from devicehub import commands
from devicehub.admin import cells
from devicehub.admin.base import EvidenceAdmin, Panel
from devicehub.admin.lists import lately
from devicehub.commands import description
from devicehub.models import CommandState, DeviceCommand

# The times of a command, in the order of its states.
STEPS = ("queued_at", "sent_at", "acknowledged_at", "answered_at", "ended_at")

MOST = 1_000  # Commands of one request.

# The glyph and the tone of each state.
LOOKS = {
    CommandState.QUEUED: ("wait", "off"),
    CommandState.SENT: ("provisioning", "busy"),
    CommandState.ACKNOWLEDGED: ("provisioning", "busy"),
    CommandState.ANSWERED: ("done", "good"),
    CommandState.FAILED: ("error", "bad"),
    CommandState.EXPIRED: ("expires", "warn"),
    CommandState.CANCELLED: ("disabled", "off"),
}


def cancel_panel(request: HttpRequest, command: DeviceCommand) -> str:
    """Return the button that cancels *command*, for a user who may, while it is queued."""
    if command.state != CommandState.QUEUED or not may_cancel(request):
        return ""
    return render_to_string("devicehub/_cancel.html", {"command": command}, request)


def may_cancel(request: HttpRequest) -> bool:
    return bool(request.user.has_perm("devicehub.change_devicecommand"))


@admin.register(DeviceCommand)
class DeviceCommandAdmin(EvidenceAdmin):
    belongs_to = "device_key"
    panels: ClassVar[list[Panel]] = [cancel_panel]
    empty_text = "No command was sent. Send one on the page of a device, or by manage.py send_command"
    list_display = ("queued_at", "device_key", "name", "progress", "attempts", "deadline", "why")
    list_filter = ("state", "name", lately("queued_at"))
    search_fields = ("=id", "device_key")
    search_help_text = "Number of a command, or device id"
    readonly_fields = ("of_device", "progress")
    fieldsets = (
        (None, {"fields": ("id", "of_device", "name", "payload")}),
        ("Progress", {"fields": ("progress", "why", "attempts", "next_attempt", "deadline", *STEPS)}),
        ("Answer", {"fields": ("result", "response")}),
    )
    actions = ("cancel",)

    @admin.display(description="Device", ordering="device_key")
    def of_device(self, command: DeviceCommand) -> str:
        return cells.device_of(command, "device_key")

    @admin.display(description="State", ordering="state")
    def progress(self, command: DeviceCommand) -> str:
        return cells.toned(*LOOKS[CommandState(command.state)], command.get_state_display())

    @admin.display(description="Why")
    def why(self, command: DeviceCommand) -> str:
        return description.reason(command)

    @admin.display(description="Next attempt")
    def next_attempt(self, command: DeviceCommand) -> str:
        """Return the time of the next attempt; a command may wait for its deadline alone."""
        return cells.until(command.due_at if command.due_at != command.deadline else None)

    @admin.display(description="Result")
    def result(self, command: DeviceCommand) -> str:
        return "" if command.result is None else json.dumps(command.result, ensure_ascii=False)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return may_cancel(request)

    @admin.action(description="Cancel selected commands", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[DeviceCommand]) -> None:
        """Cancel the commands that are still queued, and report how many were not."""
        chosen = list(queryset.order_by("pk")[: MOST + 1])
        if len(chosen) > MOST:
            self.message_user(
                request, f"These are the oldest {MOST:,} of the chosen commands; cancel the rest again."
            )
            del chosen[MOST:]
        cancelled = sum(commands.cancel(command) for command in chosen)
        self.message_user(request, f"{cancelled:,} cancelled.")
        if cancelled < len(chosen):
            late = (
                f"{left:,} not cancelled: they had ended, are being sent or may have arrived."
                if (left := len(chosen) - cancelled) > 1
                else "1 not cancelled: it had ended, is being sent or may have arrived."
            )
            self.message_user(request, late, messages.WARNING)
