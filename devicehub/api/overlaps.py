"""`overlap`: the time for which an old secret stays valid beside a new one."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import datetime
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from authsvc.credentials import UNTIL_USED
from authsvc.durations import duration
from devicehub import provisioning
from devicehub.api.fields import Closed

NOW, UNTIL_NEW = "now", "until_used"
HELP = (
    "The end of the old secret: `until_used` when the new one is first used, `now`, or a duration such as `24h`, at "
    "most 366 days."
)


@extend_schema_field(
    {
        "type": "string",
        "pattern": f"^({UNTIL_NEW}|{NOW}|[0-9]{{1,7}}[smhd])$",
        "default": UNTIL_NEW,
        "examples": [UNTIL_NEW, NOW, "24h"],
        "description": HELP,
    }
)
class Overlap(serializers.Field):
    """The end of an old secret. Its value is the time as actions take it: None for now, or UNTIL_USED."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, default=lambda: UNTIL_USED, **options)

    def to_internal_value(self, data: Any) -> Any:
        """Return the end of the old secret. Raise ValidationError."""
        text = data if isinstance(data, str) else ""
        if text in (NOW, UNTIL_NEW):
            return None if text == NOW else UNTIL_USED
        try:
            length = duration(text)
        except ArgumentTypeError:
            raise serializers.ValidationError("Write until_used, now, or a duration such as 24h.") from None
        now = timezone.now()
        try:
            provisioning.check_end(now + length, now)
        except (provisioning.InvalidOverlap, OverflowError):
            raise serializers.ValidationError("Write a duration between 1s and 366d.") from None
        return now + length

    def to_representation(self, value: Any) -> Any:
        """Return *value*; no answer has it."""
        return value


class OverlapSerializer(Closed):
    """The end of the old secret; the body may be left out."""

    overlap = Overlap()


def shown(until: datetime | None) -> datetime | None:
    """Return the end of an overlap as answers have it; None if it ends with the first use of the new secret."""
    return None if until == UNTIL_USED else until
