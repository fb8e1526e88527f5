"""The selection in the address of an endpoint's page: search, object, place in it, and the resource of the chart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from authsvc.text import make_storable
from devicehub.messages.lwm2m import paths

LONGEST = 64
RANGES: Mapping[str, tuple[str, int]] = {
    "1h": ("1 h", 3_600),
    "24h": ("24 h", 86_400),
    "7d": ("7 d", 604_800),
    "30d": ("30 d", 2_592_000),
}
SHORTEST, DEFAULT = "1h", "24h"
ID = re.compile(r"0|[1-9][0-9]{0,4}")


@dataclass(frozen=True)
class Place:
    """A selection. *object_id* is the only object that is shown; *after* is the last path of the page before.

    *first* is the first object of the page, *resource* the path of the resource whose history is shown over *range*.
    """

    search: str = ""
    object_id: int | None = None
    after: str = ""
    first: int = 0
    resource: str = ""
    range: str = ""

    def over(self, **changes: Any) -> str:
        """Return the query of this selection with *changes*."""
        new = replace(self, **changes)
        named = {
            "q": new.search,
            "object": "" if new.object_id is None else new.object_id,
            "after": new.after,
            "from": new.first or "",
            "resource": new.resource,
            "range": new.range,
        }
        return "?" + urlencode({name: value for name, value in named.items() if value != ""}, safe="/")


def parse(query: Mapping[str, str]) -> Place:
    """Return the selection in *query*; a part that cannot be read is left out."""
    range_ = query.get("range", "")
    return Place(
        search=make_storable(query.get("q", "").strip(), LONGEST),
        object_id=_id(query.get("object", "")),
        after=_path(query.get("after", "")),
        first=_id(query.get("from", "")) or 0,
        resource=_path(query.get("resource", "")),
        range=range_ if range_ in RANGES else "",
    )


def _id(text: str) -> int | None:
    return int(text) if ID.fullmatch(text) and int(text) <= paths.MAX_ID else None


def _path(text: str) -> str:
    """Return *text* if it is the path of a resource or a resource instance, as tables have it; otherwise ""."""
    try:
        ids = paths.parse(f"/{text}")
    except ValueError:
        return ""
    return text if paths.holds_value(ids) else ""
