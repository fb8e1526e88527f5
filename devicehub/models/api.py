"""Keys of programs, and the requests that a program may repeat safely."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from authsvc.secret_columns import SecretField


class ApiKey(models.Model):
    """The key with which a program acts as *owner*, limited to *scopes*, and to *site* if that is not empty.

    The key is shown once; only its digest is stored. *start* is its beginning, by which people recognise it.
    """

    name = models.CharField(max_length=100)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    scopes = models.JSONField(default=list)
    site = models.CharField(max_length=100, blank=True)
    start = models.CharField(max_length=12, editable=False)
    digest = SecretField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.name} of {self.owner}"

    @property
    def key(self) -> str:
        """The name of this key in the audit."""
        return f"api_key/{self.pk}"

    def has_expired(self) -> bool:
        """Return whether the key is refused because of its date."""
        return self.expires_at is not None and self.expires_at <= timezone.now()


class RepeatableRequest(models.Model):
    """A request that created something, by its `Idempotency-Key`; *answer* is kept unless it held a secret.

    *caller* names the user, the key or the device that sent it, and *device_key* the device that it is about, if any.
    The row expires after 24 hours, and is deleted by a later request, or with the data of that device.
    """

    caller = models.CharField(max_length=300)
    key_digest = SecretField(max_length=64)
    request_digest = SecretField(max_length=64)
    location = models.CharField(max_length=600, blank=True)
    device_key = models.CharField(max_length=260, blank=True, db_index=True)
    status = models.PositiveSmallIntegerField(default=0)
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["caller", "key_digest"], name="devicehub_repeatablerequest_key")
        ]

    def __str__(self) -> str:
        return f"{self.location} of {self.caller}"

    def keep(self, status: int, location: str, answer: Any = None, device_key: str = "") -> None:
        """Record the outcome; without *answer* a repetition learns the address alone."""
        self.status, self.location, self.answer, self.device_key = status, location, answer, device_key
        self.save(update_fields=["status", "location", "answer", "device_key"])
