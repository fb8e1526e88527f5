"""The sites that devices have, for choices, suggestions and filters."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from weakref import WeakKeyDictionary

from devicehub.db.costly import Costly
from devicehub.kinds.registry import Kind

MOST = 200  # Sites that a page offers.
KEPT = 400  # They are used for this many times the seconds that an expensive query for them took.
LONGEST = 60  # seconds; no longer, however long the query took

_sites: WeakKeyDictionary[Kind, Costly[list[str]]] = WeakKeyDictionary()


def existing(kinds: Iterable[Kind]) -> list[str]:
    """Return at most MOST sites of devices of *kinds*, sorted; in a large fleet they may be a minute old.

    The query reads the index that retention.device_indexes makes, with an entry for each device.
    """
    found: set[str] = set()
    for kind in kinds:
        kept = _sites.setdefault(kind, Costly(kept=KEPT, longest=LONGEST))
        found.update(kept.get(partial(_of, kind)))
    return sorted(found)[:MOST]


def _of(kind: Kind) -> list[str]:
    rows = kind.device_model.objects.exclude(site="").order_by("site")
    return list(rows.values_list("site", flat=True).distinct()[:MOST])
