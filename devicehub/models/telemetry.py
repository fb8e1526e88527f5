"""Readings, messages, the quarantine and rollups."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from django.db import models, transaction
from django.utils import timezone


class ProcessingStatus(models.TextChoices):
    PENDING = "pending", "Pending"
    PROCESSING = "processing", "Processing"
    COMPLETED = "completed", "Completed"
    FAILED = "failed", "Failed"


class BaseReading(models.Model):
    """The values that a device measured at one time: one nullable column per declared reading."""

    timestamp = models.DateTimeField(db_index=True)
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True
        ordering = ["-timestamp"]

    def __str__(self) -> str:
        return f"Reading at {self.timestamp}"


# The end of a failed message's error: it names the row of the quarantine that holds the bytes.
QUARANTINED_AS = " (quarantined as {})"


_QUARANTINED_AS = re.compile(r" \(quarantined as (\d+)\)\Z")


class BaseMessage(models.Model):
    """One message as it came, with its outcome. The bytes of a failed message are in the quarantine alone.

    *outcome* is one of stored, partial, failed, duplicate, retained; *notes* lists the dropped values and the reasons.
    *digest* is set when the payload carries a device time: with the device it is the message's key.
    """

    topic = models.CharField(max_length=512)
    payload_json = models.JSONField(null=True, blank=True)
    payload_raw = models.BinaryField(null=True, blank=True)
    content_type = models.CharField(max_length=100, blank=True)
    correlation_id = models.CharField(max_length=256, blank=True)
    user_properties = models.JSONField(default=dict, blank=True)
    processing_status = models.CharField(
        max_length=20, choices=ProcessingStatus, default=ProcessingStatus.PENDING, db_index=True
    )
    processing_error = models.TextField(blank=True)
    received_at = models.DateTimeField(auto_now_add=True)
    processed_at = models.DateTimeField(null=True, blank=True)
    digest = models.CharField(max_length=64, null=True, blank=True, editable=False)  # noqa: DJ001 - NULL means that there is no key
    outcome = models.CharField(max_length=10, blank=True, editable=False)
    notes = models.JSONField(default=list, blank=True, editable=False)

    class Meta:
        abstract = True
        ordering = ["-received_at"]

    def __str__(self) -> str:
        return f"Message on {self.topic} ({self.processing_status})"

    @property
    def quarantine_id(self) -> int | None:
        """The primary key of the row of the quarantine that got the bytes of this message, also if it is gone."""
        found = _QUARANTINED_AS.search(self.processing_error)
        if found is None or self.payload_raw is not None or self.payload_json is not None:
            return None
        return int(found[1])

    @property
    def quarantined(self) -> QuarantinedMessage | None:
        """The row of the quarantine that holds the bytes of this message; None if there is none, or none any more."""
        key = self.quarantine_id
        return None if key is None else QuarantinedMessage.objects.filter(pk=key).first()

    def mark_completed(self) -> None:
        """Set the status to completed and the time of processing to now, and save both."""
        self.processing_status = ProcessingStatus.COMPLETED
        self.processed_at = timezone.now()
        self.save(update_fields=["processing_status", "processed_at"])

    def mark_failed(self, error: object = "") -> None:
        """Set the status to failed with *error* and the time of processing to now, and save them."""
        self.processing_status = ProcessingStatus.FAILED
        self.processing_error = str(error)
        self.processed_at = timezone.now()
        self.save(update_fields=["processing_status", "processing_error", "processed_at"])


class QuarantinedQuerySet(models.QuerySet["QuarantinedMessage"]):
    """A query set that gives the allowances of devices back the bytes of deleted rows."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete as any query set does, and invalidate the sums of all allowances."""
        with transaction.atomic(using=self.db):
            deleted = super().delete()
            QuarantineUse.invalidate()
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class QuarantinedMessage(models.Model):
    """A message that could not be stored, with the reason and its bytes, so that nothing is lost silently.

    *size* is its part of its device's allowance, as long as it was not replayed.
    """

    reason = models.CharField(max_length=30, db_index=True)
    detail = models.CharField(max_length=500, blank=True)
    topic = models.CharField(max_length=512)
    payload = models.BinaryField()
    content_type = models.CharField(max_length=100, blank=True)
    correlation_id = models.CharField(max_length=256, blank=True)
    user_properties = models.JSONField(default=dict, blank=True)
    retain = models.BooleanField(default=False)
    device_key = models.CharField(max_length=260, blank=True, db_index=True)
    received_at = models.DateTimeField(db_index=True)
    replayed_at = models.DateTimeField(null=True, blank=True)
    dismissed_at = models.DateTimeField(null=True, blank=True)
    size = models.PositiveIntegerField(null=True, blank=True, editable=False)  # NULL in old rows

    objects = QuarantinedQuerySet.as_manager()

    class Meta:
        verbose_name = "message in quarantine"
        verbose_name_plural = "messages in quarantine"
        ordering = ["-received_at"]
        db_table = "devicehub_quarantine"

    def __str__(self) -> str:
        return f"{self.reason} on {self.topic}"

    def delete(self, using: Any = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete as any model does, and invalidate the sums of all allowances."""
        with transaction.atomic(using=using or self._state.db):
            deleted = super().delete(using, keep_parents)
            QuarantineUse.invalidate()
        return deleted


LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class QuarantineUse(models.Model):
    """The bytes that the quarantine holds of one device; *owner* is its key, or "" for messages without a device."""

    owner = models.CharField(max_length=260, primary_key=True)
    size = models.BigIntegerField()
    counted_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.size} bytes of {self.owner or 'no known device'}"

    @classmethod
    def invalidate(cls, *owners: str) -> None:
        """Invalidate the sums of *owners*, or of all: they are counted anew once they leave no room.

        Until then they stay: they can only be too large, and a batch counts few of them anew.
        """
        rows = cls.objects.filter(owner__in=owners) if owners else cls.objects.all()
        with transaction.atomic():
            # Locked in the order in which a batch changes them; otherwise the two would wait for each other.
            list(rows.select_for_update().order_by("owner").values_list("owner"))
            rows.update(counted_at=LONG_AGO)


class CountedRefusal(models.Model):
    """The number of messages refused beyond a device's allowance and not kept; *device_key* is "" if it is unknown."""

    device_key = models.CharField(max_length=260, blank=True)
    reason = models.CharField(max_length=30)
    count = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-last_at"]
        constraints = [
            models.UniqueConstraint(fields=["device_key", "reason"], name="devicehub_countedrefusal_key")
        ]

    def __str__(self) -> str:
        return f"{self.count} of {self.device_key or 'no known device'}: {self.reason}"


class Rollup(models.Model):
    """The figures of a numeric reading of a device in one hour or one day of UTC, kept after its rows are deleted."""

    class Period(models.TextChoices):
        HOUR = "hour", "Hour"
        DAY = "day", "Day"

    device_key = models.CharField(max_length=260)
    name = models.CharField(max_length=100)
    period = models.CharField(max_length=4, choices=Period)
    start = models.DateTimeField()
    low = models.FloatField()
    high = models.FloatField()
    mean = models.FloatField()
    count = models.BigIntegerField()

    class Meta:
        ordering = ["device_key", "name", "period", "start"]
        constraints = [
            models.UniqueConstraint(
                fields=["device_key", "name", "period", "start"], name="devicehub_rollup_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.device_key} in the {self.period} of {self.start}"


class RolledUp(models.Model):
    """The progress of the rollups of one kind, and the time before which its hours are deleted.

    Rows up to *last_id* count in the rollups, each once. Writers of the kind's rollups lock this row first.
    """

    kind = models.CharField(max_length=100, primary_key=True)
    last_id = models.BigIntegerField(default=0)
    hours_from = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.kind} up to {self.last_id}"
