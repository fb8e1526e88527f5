"""Commands to devices."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import models
from django.utils import timezone

from devicehub.conf import settings


class CommandState(models.TextChoices):
    """The progress of a command. A state only changes to one further down; the last four are final."""

    QUEUED = (
        "queued",
        "Queued",
    )  # Not yet published, refused by the broker, or published without a subscriber.
    SENT = (
        "sent",
        "Sent",
    )  # Published without an ack: QoS 0 has none, or the ack was lost and a retry follows.
    ACKNOWLEDGED = "acknowledged", "Acknowledged"  # The broker has the command.
    ANSWERED = "answered", "Answered"  # The device replied, with ok true or false.
    FAILED = "failed", "Failed"  # The command cannot be sent; *error* says why.
    EXPIRED = "expired", "Expired"  # No answer came before the deadline.
    CANCELLED = "cancelled", "Cancelled"


OPEN_STATES = (CommandState.QUEUED, CommandState.SENT, CommandState.ACKNOWLEDGED)


def default_deadline() -> datetime:
    """Return the deadline of a command that is queued now, by DEVICEHUB_COMMAND_DEADLINE."""
    return timezone.now() + settings.command_deadline


class DeviceCommand(models.Model):
    """One command to one device, from the moment it is queued until its state is final.

    *due_at* is when the sender must process it next, NULL in a final state; *leased_until* is set while a process
    publishes it. *attempts* counts the attempts to publish, and identifies the process that holds the lease.
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
    ended_at = models.DateTimeField(null=True, blank=True)  # Set by a failure, an expiry or an operator.
    error = models.CharField(max_length=500, blank=True)
    response = models.JSONField(null=True, blank=True)

    class Meta:
        verbose_name = "command"
        ordering = ["-queued_at"]
        indexes = [
            models.Index(
                fields=["due_at"], name="devicehub_command_due", condition=models.Q(due_at__isnull=False)
            ),
            models.Index(
                fields=["device_key"], name="devicehub_command_open", condition=models.Q(due_at__isnull=False)
            ),
            # For the newest steps of all commands.
            *(
                models.Index(
                    fields=[f"{step}_at"],
                    name=f"devicehub_command_{step[:8]}",
                    condition=models.Q((f"{step}_at__isnull", False)),
                )
                for step in ("sent", "acknowledged", "answered", "ended")
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
        """The `result` in the device's answer; None without an answer."""
        return None if self.response is None else self.response.get("result")

    @property
    def succeeded(self) -> bool:
        """True if the device answered in time with ok true."""
        return self.state == CommandState.ANSWERED and bool((self.response or {}).get("ok"))
