"""LwM2M endpoints and their messages."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import models

from devicehub.models import BaseDevice, BaseMessage

MOST_LIFETIME = 2**31 - 1  # seconds; a longer lifetime counts as this one


class EndpointNameField(models.CharField):  # type: ignore[type-arg]
    """The name with which an endpoint registers; an endpoint without one gets its device id."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the value to save."""
        value = super().pre_save(model_instance, add)
        if not value:
            value = getattr(model_instance, "device_id")  # noqa: B009 - every model with this field is a device
            setattr(model_instance, self.attname, value)
        return value


class Endpoint(BaseDevice):
    """A device that speaks LwM2M, directly over MQTT or through a Leshan server.

    *registered_at* is the time of its registration by the clock of the server that it registered with,
    *last_registration* is the time at which the last registration or update was received. *lifetime* is in seconds.
    *object_versions* has the versions that its links name, by object id; *object_links* are the paths that it
    registered.
    """

    endpoint_name = EndpointNameField(max_length=255, unique=True, blank=True)
    registered = models.BooleanField(default=False, editable=False)
    registration_id = models.CharField(max_length=128, blank=True, editable=False)
    registered_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_registration = models.DateTimeField(null=True, blank=True, editable=False)
    lifetime = models.BigIntegerField("lifetime (s)", null=True, blank=True, editable=False)
    lwm2m_version = models.CharField("LwM2M version", max_length=10, blank=True, editable=False)
    binding = models.CharField(max_length=10, blank=True, editable=False)
    queue_mode = models.BooleanField(default=False, editable=False)
    sleeping = models.BooleanField(default=False, editable=False)
    object_versions = models.JSONField(default=dict, blank=True, editable=False)
    object_links = models.JSONField(default=list, blank=True, editable=False)

    class Meta(BaseDevice.Meta):
        verbose_name = "LwM2M endpoint"

    @property
    def registration_ends_at(self) -> datetime | None:
        """The time at which the registration ends without an update; None if it is not registered."""
        if not self.registered or self.last_registration is None or self.lifetime is None:
            return None
        return self.last_registration + timedelta(seconds=min(self.lifetime, MOST_LIFETIME))


class EndpointMessage(BaseMessage):
    """One message of an endpoint as it came, with its outcome."""

    device = models.ForeignKey(Endpoint, models.CASCADE, related_name="messages", db_index=False)

    class Meta(BaseMessage.Meta):
        verbose_name = "LwM2M message"
        constraints = [models.UniqueConstraint(fields=["device", "digest"], name="lwm2m_message_key")]
