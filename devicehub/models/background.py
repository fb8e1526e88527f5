"""The state that workers keep in the database: their peers, their sessions, and work that is still to be done."""

from __future__ import annotations

from django.db import models


class IngestWorker(models.Model):
    """A worker, with the group of its shared subscription or "". The broker may keep its share while it is away.

    All messages that reached its session from *heard_since* to *heard_until* are stored.
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
    """The filters that a worker's session at the broker may hold: each filter that the worker ever subscribed to.

    The broker keeps a subscription until the worker unsubscribes. The latest *filters* come first.
    """

    client_id = models.CharField(max_length=256, primary_key=True)
    filters = models.JSONField(default=list)

    class Meta:
        ordering = ["client_id"]

    def __str__(self) -> str:
        return self.client_id


class RetainedTopic(models.Model):
    """A topic whose retained message is to be cleared at the broker. The row is deleted once that is done."""

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
    """A device with many rows whose deletion was requested: it is disabled, and its rows are deleted in portions."""

    device_key = models.CharField(max_length=260, unique=True)
    requested_at = models.DateTimeField()

    class Meta:
        verbose_name = "removal"
        ordering = ["requested_at"]

    def __str__(self) -> str:
        return self.device_key


class DisabledDevice(models.Model):
    """A disabled device whose retained messages a worker has cleared. The row is deleted once the device is enabled.

    *noticed_at* is not before its last stored message: a later message shows that it was enabled since.
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
