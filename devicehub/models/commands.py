"""Commands to devices."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import models
from django.utils import timezone

from devicehub.conf import settings


class CommandState(models.TextChoices):
    """How far a command has come. A state is only ever left for one below it; the last four are its end."""

    QUEUED = (
        "queued",
        "Queued",
    )  # to be published: not yet, or not taken by the broker, or nobody was subscribed
    SENT = "sent", "Sent"  # published without an ack: QoS 0 has none, or it was lost and is asked for again
    ACKNOWLEDGED = "acknowledged", "Acknowledged"  # the broker has it
    ANSWERED = "answered", "Answered"  # the device replied, with ok true or false
    FAILED = "failed", "Failed"  # it cannot be sent; *error* says why
    EXPIRED = "expired", "Expired"  # no answer before the deadline
    CANCELLED = "cancelled", "Cancelled"


OPEN_STATES = (CommandState.QUEUED, CommandState.SENT, CommandState.ACKNOWLEDGED)


def default_deadline() -> datetime:
    return timezone.now() + settings.command_deadline


class DeviceCommand(models.Model):
    """One command to one device, from the moment it is queued to its end.

    *due_at* is when the sender must look at it next, NULL at its end; *leased_until* is set while a process
    publishes it. *attempts* counts the times that was begun, and tells whose lease it is.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    device_key = models.CharField(max_length=260, db_index=True)
    name = models.CharField(max_length=100)
    payload = models.JSONField(default=dict)
    state = models.CharField(max_length=12, choices=CommandState, default=CommandState.QUEUED)
    deadline = models.DateTimeField(default=default_deadline)
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(null=True, blank=True, default=timezone.now, editable=False)
    leased_until = models.DateTimeField(null=True, blank=True, editable=False)
    queued_at = models.DateTimeField(default=timezone.now, db_index=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)  # by failure, expiry or an operator
    error = models.CharField(max_length=500, blank=True)
    response = models.JSONField(null=True, blank=True)

    class Meta:
        ordering = ["-queued_at"]
        indexes = [
            models.Index(
                fields=["due_at"], name="devicehub_command_due", condition=models.Q(due_at__isnull=False)
            ),
            models.Index(
                fields=["device_key"], name="devicehub_command_open", condition=models.Q(due_at__isnull=False)
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=CommandState.values), name="devicehub_command_state"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} to {self.device_key} ({self.state})"

    @property
    def result(self) -> Any:
        """What the device sent as `result`; None without an answer."""
        return None if self.response is None else self.response.get("result")

    @property
    def succeeded(self) -> bool:
        """Whether the device answered in time that it did it."""
        return self.state == CommandState.ANSWERED and bool((self.response or {}).get("ok"))
