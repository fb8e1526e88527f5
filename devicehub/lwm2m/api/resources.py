"""`/api/lwm2m/endpoints/{ep}/resources/`: the latest values of an endpoint."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub.api import paging
from devicehub.api.base import ListView
from devicehub.api.fields import Selected
from devicehub.api.operations import documented
from devicehub.lwm2m import labels
from devicehub.lwm2m.api import endpoints, values
from devicehub.lwm2m.api.values import Lwm2mValueSerializer, PathField
from devicehub.lwm2m.models import Resource

LEVELS = ("object_id", "object_instance", "resource_id", "resource_instance")


class ResourceQuery(Selected):
    """The parameters of the latest values."""

    path = PathField(
        required=False,
        default=(),
        allow_blank=True,
        help_text="An object, object instance, resource or resource instance, such as /3303 or /3303/0/5700.",
    )


class Resources(ListView):
    """The latest values of an endpoint."""

    scopes = {"GET": "telemetry:read"}
    tag = "LwM2M"
    query = ResourceQuery
    serializer_class = Lwm2mValueSerializer
    order = ("path",)

    @documented(
        operation_id="list_lwm2m_resources",
        summary="List the latest values of an LwM2M endpoint",
        responses=Lwm2mValueSerializer(many=True),
    )
    def get(self, request: Request, ep: str) -> Response:
        """Return the latest value of each resource and resource instance, in the order of their paths as texts."""
        return self.list()

    def rows(self) -> QuerySet[Any]:
        """Return the latest values at the path."""
        rows = Resource.objects.filter(device=endpoints.one(self))
        at = dict(zip(LEVELS, self.params["path"], strict=False))
        return rows.filter(**at).select_related("resource_type__object")

    def get_queryset(self) -> QuerySet[Any]:
        """Return no rows of the model, for the schema."""
        return Resource.objects.none()

    def cut(self, rows: QuerySet[Any]) -> paging.Page:
        """Return the page of *rows* that the parameters name."""
        return values.page_of(rows, self.order, self.params["cursor"], self.params["limit"])

    def shown(self, rows: list[Any]) -> list[Any]:
        """Return *rows* with the definition and the unit of each."""
        known = {(row.device_id, row.path): row.resource_type for row in rows if row.resource_type}
        units = labels.units_of([(row.device_id, row.path) for row in rows], known)
        for row in rows:
            row.known, row.unit = row.resource_type, units.get((row.device_id, row.path), "")
        return rows
