"""A denial as the service stores it: a station publishes to the topic of its neighbour."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Denial


def denial(**fields: Any) -> Denial:
    """Store a denial with *fields* in place of its own."""
    now = timezone.now()
    defaults: dict[str, Any] = {
        "dialect": "go-auth",
        "broker": "orchard-main",
        "username": "fleet-weatherstationdevice-STATION-001",
        "principal": "weatherstation/STATION-001",
        "action": "publish",
        "topic": "things/weatherstation/STATION-002/data",
        "reason": Reason.NO_GRANT,
        "first_at": now - timedelta(hours=2),
        "last_at": now,
    }
    return Denial.objects.create(**(defaults | fields))
