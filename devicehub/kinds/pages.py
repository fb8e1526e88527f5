"""The pages of a kind in the admin and the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devicehub.kinds.declare import Reading


@dataclass(frozen=True)
class Pages:
    """Declarations for the admin and the dashboard; without them a kind gets the default pages.

    *admin* maps models of the kind, or related models, to the dotted path of a ModelAdmin. *columns* are the values
    that the dashboard's table of devices shows, by name; None means the readings of the kind.
    *device_page* is the name of the URL of the page of a device, with its id as the only argument. *alias* is the
    column with another name of a device, which pages show beside its id where they differ.
    """

    admin: Mapping[type[Any], str] = field(default_factory=dict)
    columns: Mapping[str, Reading] | None = None
    device_page: str = ""
    alias: str = ""
