"""`manage.py revoke_credentials TYPE DEVICE_ID`: end the credentials of a device until new ones are issued."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from authsvc.management.command import ReasonedCommand
from devicehub import provisioning


class Command(ReasonedCommand):
    help = "End the password, the API key and the tokens of a device."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("device_id", help="id of the device")

    def handle(self, *, device_id: str, **options: Any) -> str:
        kind = provisioning.kind_of(options["type"])
        provisioning.revoke(provisioning.find(kind, device_id))
        return (
            f"The credentials of {kind.key(device_id)} have ended: every further question is denied. "
            "An open connection stays if its broker does not ask again; see docs/how-to/rotate-and-revoke.md."
        )
