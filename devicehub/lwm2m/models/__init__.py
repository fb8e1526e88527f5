"""The models of LwM2M. The kind of device `lwm2m` is registered when they are imported."""

from devicehub.lwm2m.models.endpoints import Endpoint, EndpointMessage
from devicehub.lwm2m.models.events import Event, EventResource
from devicehub.lwm2m.models.objects import Definitions, ObjectType, ResourceType
from devicehub.lwm2m.models.resources import Resource, ResourceValue

__all__ = [
    "Definitions",
    "Endpoint",
    "EndpointMessage",
    "Event",
    "EventResource",
    "ObjectType",
    "Resource",
    "ResourceType",
    "ResourceValue",
]

from devicehub.lwm2m import kind

kind.register()
