"""Endpoints in tests: two of them, and values of resources that are stored past the pipeline."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from django.utils import timezone

from devicehub.kinds.registry import Kind
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, Event, ResourceValue
from devicehub.lwm2m.models.resources import COLUMNS, columns
from devicehub.messages.lwm2m.values import DataType

TEMPERATURE, HUMIDITY, MAKER = "3303/0/5700", "3304/0/5700", "3/0/0"


@pytest.fixture
def kind() -> Kind:
    """Return the kind of the endpoints."""
    return KIND


@pytest.fixture
def endpoint(db: None) -> Endpoint:
    """Create our endpoint."""
    return Endpoint.objects.create(device_id="urn:dev:a")


@pytest.fixture
def other_endpoint(db: None) -> Endpoint:
    """Create the endpoint whose data must not change."""
    return Endpoint.objects.create(device_id="urn:dev:b")


def observe(
    endpoint: Endpoint, *points: tuple[datetime, Any], path: str = TEMPERATURE
) -> list[ResourceValue]:
    """Store one event with the values of *points* under *path*, each with its time; return their rows."""
    now = timezone.now()
    event = Event.objects.create(
        device=endpoint, type="notification", timestamp=points[-1][0], received_at=now
    )
    rows = [
        ResourceValue(
            device=endpoint,
            path=path,
            timestamp=moment,
            received_at=now,
            event=event,
            **dict(zip(COLUMNS, columns(_type_of(value), value), strict=True)),
        )
        for moment, value in points
    ]
    return ResourceValue.objects.bulk_create(rows)


def _type_of(value: Any) -> DataType:
    return {float: DataType.FLOAT, int: DataType.INTEGER, bool: DataType.BOOLEAN, str: DataType.STRING}[
        type(value)
    ]
