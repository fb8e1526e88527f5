"""All that goes onto a device, while its secrets are in clear text: for the page that shows them once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import segno
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from devicehub.credentials import address
from devicehub.credentials.address import DeviceAddress
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import FROM_DEVICE, MessageType
from devicehub.models import BaseDevice


@dataclass(frozen=True)
class Topic:
    """One topic of the device. *start* is the part that all of them have in common."""

    name: str
    verb: str
    start: str
    end: str

    @property
    def whole(self) -> str:
        return f"{self.start}{self.end}"


@dataclass(frozen=True)
class Handover:
    """Address, login and topics of a device. A secret that was not made now is empty."""

    kind: Kind
    device: BaseDevice
    address: DeviceAddress
    password: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)

    @property
    def username(self) -> str:
        return str(self.device.mqtt_username or "")

    @property
    def client_id(self) -> str:
        return self.device.mqtt_client_id or self.device.device_id

    @property
    def file_name(self) -> str:
        """The beginning of the names of the downloads: the device id, without the colons that Windows forbids."""
        return re.sub(r"[^A-Za-z0-9_-]", "-", self.device.device_id)

    @property
    def topics(self) -> list[Topic]:
        start = topics.prefix(self.kind, self.device.device_id)
        found = []
        for message_type in MessageType:
            whole = topics.build(self.kind, self.device.device_id, message_type)
            verb = "publishes" if message_type in FROM_DEVICE else "receives"
            found.append(Topic(message_type, verb, start, whole.removeprefix(start)))
        return found

    def topic(self, message_type: MessageType) -> str:
        return topics.build(self.kind, self.device.device_id, message_type)

    def values(self) -> dict[str, Any]:
        """Return everything by the names of the JSON download, without secrets that were not made now."""
        login: dict[str, Any] = {}
        if self.password:
            login = {
                "host": self.address.host,
                "port": self.address.port,
                "tls": self.address.tls,
                "mqtt_username": self.username,
                "mqtt_password": self.password,
                "client_id": self.client_id,
            }
        if self.api_key:
            login["api_key"] = self.api_key
        found = {topic.name: topic.whole for topic in self.topics}
        return {
            "type": self.kind.slug,
            "device_id": self.device.device_id,
            **login,
            "topics": found,
        }

    def qr_text(self) -> str:
        """Return the content of the QR code: compact JSON with address, username, password and client id."""
        content = {
            "url": self.address.url,
            "username": self.username,
            "password": self.password,
            "client_id": self.client_id,
        }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    def qr(self) -> SafeString:
        """Return the QR code as an element of SVG without inline style."""
        code = segno.make(self.qr_text(), micro=False, error="m")
        drawn = code.svg_inline(border=0, omitsize=True, svgclass="qr", lineclass=None)
        return format_html(
            '<div class="qr-code" id="qr" role="img" aria-label="QR code with the address, username, password'
            ' and client id">{}</div>',
            mark_safe(drawn),  # noqa: S308 - segno writes shapes only, no text of ours
        )


def of(kind: Kind, device: BaseDevice, secrets: Mapping[str, str]) -> Handover:
    """Return the handover of *device* with the *secrets* that were made now: `mqtt_password`, `api_key` or both."""
    return Handover(
        kind,
        device,
        address.for_devices(),
        password=secrets.get("mqtt_password", ""),
        api_key=secrets.get("api_key", ""),
    )
