"""Events: one for each notification, Send and registration, and those that a project records or declares."""

from __future__ import annotations

from django.db import models

from devicehub.lwm2m.models.endpoints import Endpoint
from devicehub.lwm2m.models.resources import TypedValue

NOTIFICATION, SEND, REGISTRATION = "notification", "send", "registration"
OURS = frozenset({NOTIFICATION, SEND, REGISTRATION})


class Event(models.Model):
    """Something that happened at an endpoint, with all its values.

    *type* is `notification`, `send`, `registration`, or the name of a project's type. *detail* is the part of a
    registration: `registered`, `updated`, `deregistered`, `expired`, `outdated`, `awake` or `sleeping`.
    """

    device = models.ForeignKey(
        Endpoint, models.CASCADE, related_name="events", db_index=False, verbose_name="endpoint"
    )
    type = models.CharField(max_length=64)
    detail = models.CharField(max_length=64, blank=True)
    timestamp = models.DateTimeField(db_index=True)
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
