"""Values, units and times as people read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.template.defaultfilters import pluralize
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from authsvc.durations import ago as ago
from authsvc.text import in_utc as in_utc
from devicehub.kinds.units import figure
from devicehub.kinds.units import unit as unit

LONGEST = 60


def relative(moment: datetime) -> SafeString:
    """Return how long ago *moment* is, with the exact time as its title. Pages with a script keep it current."""
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.astimezone(UTC).isoformat(),
        in_utc(moment),
        ago(moment, timezone.now()),
    )


def exact(moment: datetime) -> SafeString:
    """Return *moment* to the second: for times that may lie ahead, and for rows that differ by seconds."""
    return format_html(
        '<time class="exact" datetime="{}">{}</time>', moment.astimezone(UTC).isoformat(), in_utc(moment)
    )


def value(found: Any) -> str:
    """Return the value of a reading in at most LONGEST characters.

    >>> value(21.375), value(101325.0), value(0.00042), value(12000), value(True), value(None)
    ('21.38', '101,325', '0.00042', '12,000', 'yes', '–')
    """
    if found is None:
        return "–"
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, int):
        return f"{found:,}"
    if isinstance(found, float):
        return figure(found)
    if isinstance(found, bytes | memoryview):
        return f"{len(found)} byte{pluralize(len(found))}"
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
