"""Devices with their credentials, as the tests use them."""

from __future__ import annotations

from typing import Any

from devicehub import provisioning
from devicehub.models import BaseDevice


class Cast:
    """A device and its credentials."""

    def __init__(self, device: BaseDevice, credentials: dict[str, str]) -> None:
        self.device = device
        self.username = credentials["mqtt_username"]
        self.password = credentials["mqtt_password"]
        self.api_key = credentials["api_key"]

    def topic(self, about: str) -> str:
        """Return its topic for *about*: data, status, cmd or reply."""
        return f"things/weatherstation/{self.device.device_id}/{about}"


def provision(device_id: str, slug: str = "weatherstation", **fields: Any) -> Cast:
    """Create the device *device_id* of the type *slug*, and return it with its credentials."""
    return Cast(*provisioning.create(provisioning.kind_of(slug), device_id, **fields))
