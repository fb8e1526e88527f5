"""The kind of device `lwm2m`: endpoints, whose values are resources."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings as django_settings
from django.db.models import Sum
from django.db.models.functions import Coalesce, Length

from devicehub.kinds.declare import Reading
from devicehub.kinds.pages import Pages
from devicehub.kinds.registry import Kind, registry
from devicehub.kinds.store import Latest, Narrow
from devicehub.lwm2m import catalogue, labels
from devicehub.lwm2m.hooks import EndpointHooks
from devicehub.lwm2m.inbox.inbox import EndpointInbox
from devicehub.lwm2m.models import (
    Endpoint,
    EndpointMessage,
    Event,
    EventResource,
    ObjectType,
    Resource,
    ResourceType,
    ResourceValue,
)
from devicehub.lwm2m.models.resources import COLUMNS, read
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.values import DataType

ADMIN = "devicehub.lwm2m.admin"


def _holds_value(name: str) -> bool:
    """Return whether *name* is the path of a resource or of an instance of one."""
    try:
        return paths.holds_value(paths.parse(f"/{name}"))
    except ValueError:
        return False


class ResourceTables:
    """The tables of the values of endpoints. A value is deleted before its event, to which it refers."""

    models = (ResourceValue, EventResource, Event)
    narrow = Narrow(ResourceValue, columns=COLUMNS, read=read)
    current = (Resource,)
    counted = {Event: "events", Resource: "resources", EventResource: "event_values"}

    def describe(self, name: str) -> Reading | None:
        """Return the name, the type and the unit that the newest definition gives to a path; None for other texts."""
        if not _holds_value(name):
            return None
        path = paths.parse(f"/{name}")
        known = catalogue.current().find(path[0], path[2], None)
        found = None if known is None else ResourceType.objects.filter(pk=known.key).first()
        if found is None:
            return None
        return Reading(
            type="float" if found.type == DataType.FLOAT else "integer",
            unit=found.unit,
            verbose_name=f"{found.name} {name}",
        )

    def units(self, device: int, names: Sequence[str]) -> Mapping[str, str]:
        """Return the units of *names*, which are paths, of one endpoint (a primary key); one without is left out."""
        endpoint: Any = Endpoint.objects.only("pk", "object_versions").filter(pk=device).first()
        of_values = [name for name in names if _holds_value(name)]
        if endpoint is None or not of_values:
            return {}
        pairs = [(device, name) for name in of_values]
        found = labels.units_of(pairs, labels.of_paths((endpoint, name) for name in of_values))
        return {name: unit for (_, name), unit in found.items()}

    def weight(self, device: int, names: Sequence[str]) -> int:
        """Return the characters and bytes of the latest values of *names* of one endpoint (a primary key)."""
        size = Coalesce(Length("text"), 0) + Coalesce(Length("opaque"), 0)
        rows = Resource.objects.filter(device=device, path__in=list(names))
        return int(rows.aggregate(size=Sum(size))["size"] or 0)

    def latest(self, devices: Collection[int], names: Sequence[str]) -> Mapping[tuple[int, str], Latest]:
        """Return the latest value of each of *names*, which are paths, by primary key of the endpoint and name."""
        rows = Resource.objects.filter(device__in=list(devices), path__in=list(names)).order_by()
        return {(row.device_id, row.path): Latest(row.value, row.timestamp) for row in rows}


class Keep(Mapping[str, Any]):
    """The retention periods of endpoints, by the options of a type's `Meta`, as the settings give them."""

    def _read(self) -> Mapping[str, Any]:
        found = getattr(django_settings, "DEVICEHUB_LWM2M_KEEP", {})
        # A check refuses a text that is not an option.
        return found if isinstance(found, Mapping) else {repr(found): None}

    def __getitem__(self, option: str) -> Any:
        return self._read()[option]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


KIND = Kind(
    slug="lwm2m",
    device_model=Endpoint,
    message_model=EndpointMessage,
    store=ResourceTables(),
    inbox=EndpointInbox(),
    hooks=EndpointHooks,
    keep=Keep(),
    pages=Pages(
        admin={
            Endpoint: f"{ADMIN}.endpoints.EndpointAdmin",
            EndpointMessage: f"{ADMIN}.endpoints.EndpointMessageAdmin",
            ObjectType: f"{ADMIN}.definitions.ObjectTypeAdmin",
            ResourceType: f"{ADMIN}.definitions.ResourceTypeAdmin",
            Resource: f"{ADMIN}.values.ResourceAdmin",
            ResourceValue: f"{ADMIN}.values.ResourceValueAdmin",
            Event: f"{ADMIN}.events.EventAdmin",
            EventResource: f"{ADMIN}.events.EventResourceAdmin",
        },
        device_page="devicehub:lwm2m_objects",
        alias="endpoint_name",
    ),
    heartbeat_interval=86_400,  # The default lifetime of a registration.
)


def register() -> None:
    """Register the kind, unless it is registered already."""
    if registry.get(KIND.slug) is not KIND:
        registry.register(KIND)
