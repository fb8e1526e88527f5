"""`/api/lwm2m/endpoints/{ep}/history/`: the values of one resource over time."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub.api import paging
from devicehub.api.base import ListView
from devicehub.api.fields import Moment, Selected
from devicehub.api.operations import documented
from devicehub.lwm2m import labels
from devicehub.lwm2m.api import endpoints, values
from devicehub.lwm2m.api.values import Lwm2mValueSerializer, PathField
from devicehub.lwm2m.models import Endpoint, ResourceValue
from devicehub.messages.lwm2m import paths


class Between(Selected):
    """The parameters of a list over a range of time."""

    def get_fields(self) -> Any:
        """Return the fields, with one whose name is a word of Python."""
        found = super().get_fields()
        found["from"] = Moment(
            required=False, default=None, help_text="The time from which on values are listed."
        )
        found["to"] = Moment(
            required=False, default=None, help_text="The time before which values are listed."
        )
        return found


class HistoryQuery(Between):
    """The parameters of the history."""

    path = PathField(
        holds_value=True, help_text="The path of a resource or of a resource instance, such as /3303/0/5700."
    )


class History(ListView):
    """The values of one resource over time."""

    scopes = {"GET": "telemetry:read"}
    tag = "LwM2M"
    query = HistoryQuery
    serializer_class = Lwm2mValueSerializer
    order = ("-timestamp", "-id")
    endpoint: Endpoint

    @documented(
        operation_id="list_lwm2m_history",
        summary="List the values of an LwM2M resource over time",
        responses=Lwm2mValueSerializer(many=True),
    )
    def get(self, request: Request, ep: str) -> Response:
        """Return each stored value of one resource or resource instance, the newest first.

        A resource with several instances has the values of each under its own path, such as /3/0/7/1.
        """
        return self.list()

    def rows(self) -> QuerySet[Any]:
        """Return the values at the path in the range of time."""
        self.endpoint = endpoints.one(self)
        rows = ResourceValue.objects.filter(device=self.endpoint, path=paths.name(self.params["path"]))
        since, until = self.params["from"], self.params["to"]
        if since is not None:
            rows = rows.filter(timestamp__gte=since)
        return rows if until is None else rows.filter(timestamp__lt=until)

    def get_queryset(self) -> QuerySet[Any]:
        """Return no rows of the model, for the schema."""
        return ResourceValue.objects.none()

    def cut(self, rows: QuerySet[Any]) -> paging.Page:
        """Return the page of *rows* that the parameters name."""
        return values.page_of(rows, self.order, self.params["cursor"], self.params["limit"])

    def shown(self, rows: list[Any]) -> list[Any]:
        """Return *rows* with their definition and unit."""
        if not rows:
            return rows
        path = rows[0].path
        place = (self.endpoint.pk, path)
        known = labels.of_paths([(self.endpoint, path)])
        unit = labels.units_of([place], known).get(place, "")
        for row in rows:
            row.known, row.unit = known.get(place), unit
        return rows
