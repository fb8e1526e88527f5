"""`manage.py rotate_credentials TYPE DEVICE_ID`: give a device a new MQTT password or API key, shown once."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from authsvc.credentials import UNTIL_USED
from authsvc.durations import duration
from authsvc.management.command import ReasonedCommand
from devicehub import provisioning
from devicehub.management.prompts import read_password


class Command(ReasonedCommand):
    help = "Give a device a new MQTT password (or API key) and print it, only once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("device_id", help="id of the device")
        until = parser.add_mutually_exclusive_group()
        until.add_argument(
            "--overlap",
            type=duration,
            default=duration("24h"),
            help="how long the old password stays valid (default: 24h)",
        )
        until.add_argument(
            "--until-used", action="store_true", help="end the old password when the new one is first used"
        )
        until.add_argument("--now", action="store_true", help="end the old password now")
        until.add_argument(
            "--api-key", action="store_true", help="replace the API key instead; the old key ends now"
        )
        until.add_argument(
            "--ask", action="store_true", help="prompt for a password of your choice; the old one ends now"
        )
        parser.add_argument("--json", action="store_true", help="print the new credentials as JSON")

    def handle(self, **options: Any) -> str:
        device = provisioning.find(provisioning.kind_of(options["type"]), options["device_id"])
        if options["ask"]:
            provisioning.choose_password(device, read_password())
            return f"{device.mqtt_username} has the password you chose. The old one has ended."
        if options["api_key"]:
            had_key = device.api_key is not None
            answer = {"api_key": provisioning.rotate_api_key(device)}
            ends = "The old one has ended." if had_key else "There was no API key before."
        else:
            had, was_unused = bool(device.mqtt_password_hash), device.awaits_first_use()
            password = provisioning.rotate_password(device, valid_until=_until(options))
            answer = {"mqtt_username": str(device.mqtt_username), "mqtt_password": password}
            ends = provisioning.end_of_previous(device, had=had, was_unused=was_unused)
        if options["json"]:
            return json.dumps(answer)
        return "\n".join(
            [*(f"{name}: {value}" for name, value in answer.items()), f"Shown only once. {ends}"]
        )


def _until(options: dict[str, Any]) -> datetime | None:
    if options["now"]:
        return None
    return UNTIL_USED if options["until_used"] else timezone.now() + options["overlap"]
