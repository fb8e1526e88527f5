"""`/api/lwm2m/endpoints/`: the endpoints with their registrations."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import Q, QuerySet
from django.http import Http404
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import visibility
from devicehub.api.base import ApiView, ListView
from devicehub.api.fields import Moment, Selectable, SelectedOne
from devicehub.api.filters import TextFilter
from devicehub.api.operations import documented
from devicehub.kinds.identifiers import is_text
from devicehub.lwm2m import labels
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint
from devicehub.lwm2m.names import MOST

# The columns that an answer is made of: no credential, and not the state.
COLUMNS = (
    "device_id", "endpoint_name", "name", "site", "is_active", "registered", "registration_id", "registered_at",
    "last_registration", "lifetime", "lwm2m_version", "binding", "queue_mode", "sleeping", "object_versions",
    "object_links",
)  # fmt: skip


class Lwm2mObjectLinkSerializer(serializers.Serializer):
    """A link that the endpoint registered."""

    path = serializers.CharField(help_text="An object or object instance, such as /3303/0.")
    version = serializers.CharField(
        allow_null=True, help_text="The version of the object, if the endpoint named one."
    )


class Lwm2mEndpointSerializer(Selectable):
    """An endpoint with its registration."""

    endpoint = serializers.CharField(
        source="endpoint_name", help_text="The name with which it registers, as Leshan shows it."
    )
    device_id = serializers.CharField(help_text="Its device id, which is made from its name.")
    name = serializers.CharField()
    site = serializers.CharField()
    is_active = serializers.BooleanField(help_text="Whether its credentials are valid at all.")
    registered = serializers.BooleanField()
    registration_id = serializers.CharField(help_text="The id that the server gave to its registration.")
    registered_at = Moment(
        allow_null=True, help_text="The time of its registration, by the clock of the server."
    )
    last_registration = Moment(
        allow_null=True, help_text="The time at which its last registration or update was received."
    )
    registration_ends_at = Moment(
        allow_null=True, help_text="The end of its registration, unless an update comes before."
    )
    lifetime = serializers.IntegerField(allow_null=True, help_text="Seconds.")
    version = serializers.CharField(source="lwm2m_version", help_text="The version of LwM2M.")
    binding = serializers.CharField(help_text="Its transports, such as U or UQ.")
    queue_mode = serializers.BooleanField()
    sleeping = serializers.BooleanField(
        help_text="Whether it said that it sleeps, and has sent nothing since."
    )
    object_links = serializers.SerializerMethodField()

    @extend_schema_field(Lwm2mObjectLinkSerializer(many=True))
    def get_object_links(self, row: Any) -> list[dict[str, Any]]:
        """Return the objects and object instances that it registered."""
        versions = labels.versions_of(row)
        links = row.object_links if isinstance(row.object_links, list) else ()
        return [
            {"path": link, "version": versions.get(link.split("/")[1])}
            for link in links
            if isinstance(link, str) and link.startswith("/")
        ]


class EndpointFilter(django_filters.FilterSet):
    """The filters of the list of endpoints."""

    class Meta:
        model = Endpoint
        fields: tuple[str, ...] = ()

    endpoint = TextFilter(field_name="endpoint_name", help_text="The name with which the endpoint registers.")
    device_id = TextFilter(help_text="The device id of the endpoint.")


class Endpoints(ListView):
    """The endpoints that the caller may see."""

    scopes = {"GET": "devices:read"}
    tag = "LwM2M"
    serializer_class = Lwm2mEndpointSerializer
    filterset_class = EndpointFilter
    order = ("endpoint_name",)

    def rows(self) -> QuerySet[Any]:
        """Return the endpoints that the caller may see."""
        return visible(self)

    @documented(
        operation_id="list_lwm2m_endpoints",
        summary="List LwM2M endpoints",
        responses=Lwm2mEndpointSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """Return the endpoints in the order of their names."""
        return self.list()


class OneEndpoint(ApiView):
    """One endpoint."""

    scopes = {"GET": "devices:read"}
    tag = "LwM2M"
    query = SelectedOne

    @documented(
        operation_id="get_lwm2m_endpoint", summary="Read an LwM2M endpoint", responses=Lwm2mEndpointSerializer
    )
    def get(self, request: Request, ep: str) -> Response:
        """Return one endpoint. `ep` is its endpoint name, or its device id: use this if the name holds a slash."""
        return Response(Lwm2mEndpointSerializer(one(self), context=self.context()).data)


def visible(view: ApiView) -> QuerySet[Any]:
    """Return the endpoints that the caller of *view* may see. Raise Problem without the permission."""
    view.require(visibility.VIEW, Endpoint)
    return visibility.devices(KIND, view.request.user).only(*COLUMNS)


def one(view: ApiView) -> Endpoint:
    """Return the endpoint of the address of *view*, by endpoint name or else by device id. Raise Http404, Problem."""
    name = view.kwargs["ep"]
    rows = visible(view)
    if not is_text(name) or len(name) > MOST:
        raise Http404
    found = list(rows.filter(Q(endpoint_name=name) | Q(device_id=name)))
    if not found:
        raise Http404
    chosen: Endpoint = max(found, key=lambda row: row.endpoint_name == name)
    return chosen
