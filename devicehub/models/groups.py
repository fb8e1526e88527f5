"""Additions to devices by key, so that the tables of users get no migration: tags, options and groups."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from devicehub.conf import rate_limit

MAX_TAGS = 50  # Of one device.
LONGEST_HEARTBEAT = 30 * 86_400  # seconds


def validate_words(value: Any) -> None:
    """Raise ValidationError unless *value* is a list of texts that are not empty."""
    if not isinstance(value, list) or not all(isinstance(entry, str) and entry for entry in value):
        raise ValidationError("Write a list of texts, one per line.")


def validate_rate(value: str) -> None:
    """Raise ValidationError unless *value* is a rate such as 600/m."""
    try:
        rate_limit(value)
    except ValueError as error:
        raise ValidationError("Write messages for each second, minute or hour, such as 600/m.") from error


class DeviceTag(models.Model):
    """A tag of a device. Tags are free words, at most 50 for each device."""

    device_key = models.CharField(max_length=260)
    tag = models.SlugField(max_length=50, db_index=True)

    class Meta:
        ordering = ["tag"]
        constraints = [
            models.UniqueConstraint(fields=["device_key", "tag"], name="devicehub_devicetag_unique")
        ]

    def __str__(self) -> str:
        return f"{self.device_key}: {self.tag}"


class DeviceOptions(models.Model):
    """The options of one device that differ from those of its type."""

    device_key = models.CharField(max_length=260, primary_key=True)
    expected_heartbeat = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_HEARTBEAT)],
        help_text="Seconds between two messages of this device; empty is the interval of its type.",
    )
    rate_limit = models.CharField(
        max_length=40,
        blank=True,
        validators=[validate_rate],
        help_text="Messages that this device may send, such as 60/m; empty is the limit of all devices.",
    )

    def __str__(self) -> str:
        return self.device_key


class DeviceGroup(models.Model):
    """A named set of devices, as a subject of grants: chosen members, or all devices that a filter selects."""

    slug = models.SlugField(
        max_length=50,
        unique=True,
        validators=[RegexValidator(r"\A[a-z0-9_-]+\Z", "Use small letters, digits, - and _.")],
        help_text="The name in grants, as in group:roof; it cannot be changed later.",
    )
    name = models.CharField(max_length=100)
    note = models.CharField(max_length=255, blank=True)
    # A filter selects the devices that fit every list that is not empty. Without any list members are chosen by hand.
    types = models.JSONField(default=list, blank=True, validators=[validate_words])
    sites = models.JSONField(default=list, blank=True, validators=[validate_words])
    tags = models.JSONField(default=list, blank=True, validators=[validate_words])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "group of devices"
        verbose_name_plural = "groups of devices"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def has_filter(self) -> bool:
        """Whether a filter selects the members; otherwise they are chosen by hand."""
        return bool(self.types or self.sites or self.tags)


class GroupMember(models.Model):
    """A member of a group. Triggers watch these rows as they watch grants."""

    group = models.ForeignKey(DeviceGroup, on_delete=models.CASCADE, related_name="members")
    device_key = models.CharField(max_length=260, db_index=True)

    class Meta:
        ordering = ["device_key"]
        constraints = [
            models.UniqueConstraint(fields=["group", "device_key"], name="devicehub_groupmember_unique")
        ]

    def __str__(self) -> str:
        return f"{self.device_key} in {self.group}"
