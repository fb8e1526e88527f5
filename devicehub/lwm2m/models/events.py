"""Events: one for each notification, Send and registration, and those that a project records or declares."""

from __future__ import annotations

from typing import Any

from django.db import models

from devicehub.lwm2m.models.endpoints import Endpoint
from devicehub.lwm2m.models.resources import Resource, ResourceValue, TypedValue

NOTIFICATION, SEND, REGISTRATION = "notification", "send", "registration"
OURS = frozenset({NOTIFICATION, SEND, REGISTRATION})


class Event(models.Model):
    """Something that happened at an endpoint, with all its values.

    *type* is `notification`, `send`, `registration`, or the name of a project's type. *detail* is the part of a
    registration: `registered`, `updated`, `deregistered`, `expired`, `outdated`, `awake` or `sleeping`. *timestamp* is
    the time of its newest value, and *earliest* that of its oldest, or None if all have one time.
    """

    device = models.ForeignKey(
        Endpoint, models.CASCADE, related_name="events", db_index=False, verbose_name="endpoint"
    )
    type = models.CharField(max_length=64)
    detail = models.CharField(max_length=64, blank=True)
    timestamp = models.DateTimeField(db_index=True)
    earliest = models.DateTimeField(null=True, blank=True)
    received_at = models.DateTimeField()

    class Meta:
        verbose_name = "LwM2M event"
        ordering = ["-timestamp", "-pk"]
        indexes = [
            models.Index(fields=["device", "timestamp"], name="lwm2m_event_of_device"),
            models.Index(fields=["type", "timestamp"], name="lwm2m_event_of_type"),
        ]

    def __str__(self) -> str:
        return f"{self.detail or self.type} of {self.device_id} at {self.timestamp}"

    def values(self) -> models.QuerySet[Any]:
        """Return its values; those of an event of our own types stand in the history."""
        if self.type not in OURS:
            return EventResource.objects.filter(event=self.pk)
        return ResourceValue.objects.filter(
            device=self.device_id,
            path__in=Resource.objects.filter(device=self.device_id).values("path"),
            timestamp__range=(self.earliest or self.timestamp, self.timestamp),
            event=self.pk,
        )


class EventResource(TypedValue):
    """One value of an event of a project's type. The values of our own types stand in the history.

    *device* is that of the event, and *timestamp* is not later than its time: so the value is deleted before its event.
    """

    device = models.ForeignKey(
        Endpoint, models.CASCADE, related_name="event_values", db_index=False, verbose_name="endpoint"
    )
    event = models.ForeignKey(
        Event, models.CASCADE, related_name="own_values", db_index=False, db_constraint=False
    )
    timestamp = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = "value of an LwM2M event"
        ordering = ["event", "path"]
        constraints = [models.UniqueConstraint(fields=["event", "path"], name="lwm2m_eventresource_key")]
        indexes = [models.Index(fields=["device", "timestamp"], name="lwm2m_eventresource_device")]
