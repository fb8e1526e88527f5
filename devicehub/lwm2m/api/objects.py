"""`/api/lwm2m/objects/`: the object types that this service knows, with their resource types."""

from __future__ import annotations

from typing import Any

import django_filters
from django import forms
from django.db.models import QuerySet
from django.http import Http404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import visibility
from devicehub.api.base import ApiView, ListView
from devicehub.api.fields import Selectable, SelectedOne
from devicehub.api.filters import Settled, TextFilter
from devicehub.api.operations import documented
from devicehub.lwm2m.labels import OPERATIONS
from devicehub.lwm2m.models import Endpoint, ObjectType
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.objects import order
from devicehub.messages.lwm2m.values import DataType


class Operations(serializers.ListField):
    """The operations that a server may do with a resource."""

    child = serializers.ChoiceField(choices=list(OPERATIONS.values()))

    def to_representation(self, data: Any) -> Any:
        """Return the words of the letters in *data*."""
        return [word for letter, word in OPERATIONS.items() if letter in data]


class TypeField(serializers.ChoiceField):
    """The type of a value, as LwM2M names it."""

    def __init__(self, **options: Any) -> None:
        super().__init__([(kind.value, kind.name) for kind in DataType], **options)

    def to_representation(self, value: Any) -> Any:
        """Return the name of the type, or None for an executable resource."""
        return value or None


class Lwm2mResourceTypeSerializer(serializers.Serializer):
    """One resource of an object."""

    resource_id = serializers.IntegerField()
    name = serializers.CharField()
    type = TypeField(
        allow_null=True, help_text="The type of its values; null for a resource that is only executed."
    )
    operations = Operations(help_text="The operations that a server may do.")
    multiple = serializers.BooleanField(help_text="Whether it may have several instances.")
    mandatory = serializers.BooleanField()
    unit = serializers.CharField(help_text="The unit as SenML writes it, or an empty text.")
    range = serializers.CharField(
        help_text="The allowed values as the definition writes them, or an empty text."
    )
    description = serializers.CharField()


class Lwm2mObjectTypeSerializer(Selectable):
    """One version of an object, with its resources."""

    object_id = serializers.IntegerField()
    version = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    urn = serializers.CharField()
    multiple = serializers.BooleanField(help_text="Whether it may have several instances.")
    mandatory = serializers.BooleanField()
    resources = Lwm2mResourceTypeSerializer(many=True)


class Lwm2mOneObjectSerializer(Lwm2mObjectTypeSerializer):
    """One version of an object, with its resources and the names of all versions."""

    versions = serializers.ListField(child=serializers.CharField())


class IdFilter(Settled, django_filters.NumberFilter):
    """A filter by an id of LwM2M."""

    field_class = forms.IntegerField


class ObjectFilter(django_filters.FilterSet):
    """The filters of the list of objects."""

    class Meta:
        model = ObjectType
        fields: tuple[str, ...] = ()

    object_id = IdFilter(min_value=0, max_value=paths.MAX_ID, help_text="The id of the object.")
    version = TextFilter(help_text="The version, such as 1.1.")


class OneObjectQuery(SelectedOne):
    """The parameters of one object."""

    version = serializers.CharField(
        required=False, default="", help_text="The version; without it, the newest one."
    )


class Objects(ListView):
    """The objects that this service knows."""

    scopes = {"GET": "devices:read"}
    tag = "LwM2M"
    serializer_class = Lwm2mObjectTypeSerializer
    filterset_class = ObjectFilter
    order = ("object_id", "version")

    def rows(self) -> QuerySet[Any]:
        """Return the objects with their resources."""
        return known(self)

    @documented(
        operation_id="list_lwm2m_objects",
        summary="List LwM2M objects",
        responses=Lwm2mObjectTypeSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """Return the object types with their resource types, in the order of their ids and versions."""
        return self.list()


class OneObject(ApiView):
    """One object."""

    scopes = {"GET": "devices:read"}
    tag = "LwM2M"
    query = OneObjectQuery

    @documented(
        operation_id="get_lwm2m_object", summary="Read an LwM2M object", responses=Lwm2mOneObjectSerializer
    )
    def get(self, request: Request, object_id: int) -> Response:
        """Return one version of an object type with its resource types."""
        rows = known(self).filter(object_id=object_id) if object_id <= paths.MAX_ID else ()
        by_version = {one.version: one for one in rows}
        wanted = self.params["version"]
        if not by_version or (wanted and wanted not in by_version):
            raise Http404
        found: Any = by_version[wanted or max(by_version, key=order)]
        found.versions = sorted(by_version, key=order)
        return Response(Lwm2mOneObjectSerializer(found, context=self.context()).data)


def known(view: ApiView) -> QuerySet[ObjectType]:
    """Return all objects with their resources. Raise Problem unless the caller may see these, or endpoints."""
    if not visibility.may(view.request.user, visibility.VIEW, Endpoint):
        view.require(visibility.VIEW, ObjectType)
    return ObjectType.objects.prefetch_related("resources")
