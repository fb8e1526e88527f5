"""What a kind adds to the pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devicehub.kinds.declare import Reading


@dataclass(frozen=True)
class Pages:
    """Declarations for the admin and the dashboard; what is not declared gets the pages of every kind.

    *admin* maps models of the kind, or models beside them, to the dotted path of a ModelAdmin. *columns* are the
    values that the dashboard's table of devices shows, by name; None is the readings of the kind.
    """

    admin: Mapping[type[Any], str] = field(default_factory=dict)
    columns: Mapping[str, Reading] | None = None
