"""The definitions of LwM2M objects and their resources, as object files give them."""

from __future__ import annotations

from django.db import models

from devicehub.messages.lwm2m.values import DataType


class ObjectType(models.Model):
    """One version of an LwM2M object. *origin* says where its definition comes from."""

    object_id = models.PositiveIntegerField("object id")
    version = models.CharField(max_length=11, default="1.0")
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True)
    urn = models.CharField("URN", max_length=255, blank=True)
    multiple = models.BooleanField("several instances", default=True)
    mandatory = models.BooleanField(default=False)
    origin = models.CharField(max_length=255, blank=True)

    class Meta:
        verbose_name = "LwM2M object"
        ordering = ["object_id", "version"]
        constraints = [models.UniqueConstraint(fields=["object_id", "version"], name="lwm2m_objecttype_key")]

    def __str__(self) -> str:
        return f"{self.object_id} {self.name} ({self.version})"


class ResourceType(models.Model):
    """One resource of an object: its id, name, type, operations, unit and range. An executable has no type."""

    object = models.ForeignKey(ObjectType, models.CASCADE, related_name="resources", db_index=False)
    resource_id = models.PositiveIntegerField("resource id")
    name = models.CharField(max_length=255)
    type = models.CharField(
        max_length=16, blank=True, choices=[(kind.value, kind.value) for kind in DataType]
    )
    operations = models.CharField(max_length=2, blank=True)
    multiple = models.BooleanField("several instances", default=False)
    mandatory = models.BooleanField(default=False)
    unit = models.CharField(max_length=64, blank=True)
    range = models.CharField(max_length=255, blank=True)
    description = models.TextField(blank=True)

    class Meta:
        verbose_name = "LwM2M resource"
        ordering = ["object", "resource_id"]
        constraints = [
            models.UniqueConstraint(fields=["object", "resource_id"], name="lwm2m_resourcetype_key")
        ]

    def __str__(self) -> str:
        return f"{self.resource_id} {self.name}"


class Definitions(models.Model):
    """The state of the definitions: one row. Each change raises *revision*, which every process compares.

    *shipped* is the digest of the shipped definitions that the tables hold.
    """

    revision = models.BigIntegerField(default=0)
    shipped = models.CharField(max_length=64, blank=True)

    def __str__(self) -> str:
        return f"Revision {self.revision}"
