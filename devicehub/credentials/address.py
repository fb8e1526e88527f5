"""The address of the broker for devices, as DEVICEHUB_DEVICE_URL or else MQTT_URL has it, without any login."""

from __future__ import annotations

from dataclasses import dataclass

from authsvc.operation.deployment import LOOPBACK
from devicehub.conf import settings
from devicehub.mqtt import BrokerAddress, InvalidAddress


@dataclass(frozen=True)
class DeviceAddress:
    """Host and port for devices. *hint* says what is wrong with them for a device on another machine."""

    host: str
    port: int
    tls: bool
    hint: str = ""

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def for_devices() -> DeviceAddress:
    """Return the address that devices use. It never raises: a page that shows a secret once must not fail."""
    name = "DEVICEHUB_DEVICE_URL" if settings.device_url else "MQTT_URL"
    try:
        found = BrokerAddress.parse(settings.device_url or settings.mqtt_url, name)
    except InvalidAddress:
        return DeviceAddress("127.0.0.1", 1883, tls=False, hint=f"{name} cannot be read.")
    hint = ""
    if found.host in LOOPBACK:
        hint = (
            f"{found.host} is this server itself: set DEVICEHUB_DEVICE_URL to the address that devices use."
        )
    return DeviceAddress(found.host, found.port, found.tls, hint)
