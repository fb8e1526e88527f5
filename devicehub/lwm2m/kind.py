"""The kind of device `lwm2m`: endpoints, whose values are resources."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from devicehub.kinds.registry import Kind, registry
from devicehub.kinds.store import Latest
from devicehub.lwm2m.hooks import EndpointHooks
from devicehub.lwm2m.inbox.inbox import EndpointInbox
from devicehub.lwm2m.models import (
    Endpoint,
    EndpointMessage,
    Event,
    EventResource,
    Resource,
    ResourceValue,
)


class ResourceTables:
    """The tables of the values of endpoints. A value is deleted before its event, to which it refers."""

    models = (ResourceValue, EventResource, Event)

    def latest(self, devices: Collection[int], names: Sequence[str]) -> Mapping[tuple[int, str], Latest]:
        """Return the latest value of each of *names*, which are paths, by primary key of the endpoint and name."""
        rows = Resource.objects.filter(device__in=list(devices), path__in=list(names)).order_by()
        return {(row.device_id, row.path): Latest(row.value, row.timestamp) for row in rows}


KIND = Kind(
    slug="lwm2m",
    device_model=Endpoint,
    message_model=EndpointMessage,
    store=ResourceTables(),
    inbox=EndpointInbox(),
    hooks=EndpointHooks,
    heartbeat_interval=86_400,  # The default lifetime of a registration.
)


def register() -> None:
    """Register the kind, unless it is registered already."""
    if registry.get(KIND.slug) is not KIND:
        registry.register(KIND)
