"""Devices with their credentials, as the tests use them."""

from __future__ import annotations

from typing import Any

from devicehub import provisioning
from devicehub.models import BaseDevice


class Cast:
    """A device and the credentials it was given."""

    def __init__(self, device: BaseDevice, credentials: dict[str, str]) -> None:
        self.device = device
        self.username = credentials["mqtt_username"]
        self.password = credentials["mqtt_password"]
        self.api_key = credentials["api_key"]

    def topic(self, about: str) -> str:
        return f"things/weatherstation/{self.device.device_id}/{about}"


def provision(device_id: str, slug: str = "weatherstation", **fields: Any) -> Cast:
    return Cast(*provisioning.create(provisioning.kind_of(slug), device_id, **fields))
