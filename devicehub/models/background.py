"""What the worker keeps between two of its runs: its peers, its sessions, and work that is to be done."""

from __future__ import annotations

from django.db import models


class IngestWorker(models.Model):
    """A worker of a shared subscription, which the broker may give its share also while it is away.

    What reached its session from *heard_since* to *heard_until* is stored.
    """

    client_id = models.CharField(max_length=256, primary_key=True)
    group = models.CharField(max_length=256)
    heard_since = models.DateTimeField()
    heard_until = models.DateTimeField()

    class Meta:
        ordering = ["client_id"]

    def __str__(self) -> str:
        return self.client_id


class IngestSession(models.Model):
    """What a worker's session at the broker may be subscribed to: every filter that the worker ever subscribed to.

    The broker keeps a subscription until the worker unsubscribes. The latest *filters* come first.
    """

    client_id = models.CharField(max_length=256, primary_key=True)
    filters = models.JSONField(default=list)

    class Meta:
        ordering = ["client_id"]

    def __str__(self) -> str:
        return self.client_id


class RetainedTopic(models.Model):
    """A topic whose retained message the broker has to forget, until it has."""

    topic = models.CharField(max_length=512, unique=True)
    requested_at = models.DateTimeField()
    next_at = models.DateTimeField(db_index=True)
    attempts = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["next_at"]

    def __str__(self) -> str:
        return self.topic


class RemovalRequest(models.Model):
    """A device with many rows that somebody deleted: it is disabled, and goes in small portions."""

    device_key = models.CharField(max_length=260, unique=True)
    requested_at = models.DateTimeField()

    class Meta:
        ordering = ["requested_at"]

    def __str__(self) -> str:
        return self.device_key


class DisabledDevice(models.Model):
    """A device that a worker found disabled, and whose retained messages it has cleared, until it is enabled.

    *noticed_at* is not before the last message that was stored of it: a later one shows that it was enabled since.
    """

    kind = models.CharField(max_length=100)
    device_pk = models.BigIntegerField()
    noticed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "device_pk"], name="devicehub_disableddevice_key")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.device_pk}"
