"""The device id of an endpoint. An endpoint name may have characters that a device id refuses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from itertools import count
from typing import Any

from devicehub.kinds.identifiers import is_device_id, is_text
from devicehub.lwm2m.models import Endpoint

MOST = 255  # characters of an endpoint name
REFUSED = re.compile(r"[^A-Za-z0-9_:-]+")
PROPERTY = "endpoint"  # The user property with the name, of a message that came through a Leshan server.
KEPT = 111  # characters of a changed name that stay in the device id


def is_endpoint_name(text: object) -> bool:
    """Return whether *text* can be an endpoint name: 1-255 characters without NUL and lone surrogates."""
    return isinstance(text, str) and 0 < len(text) <= MOST and is_text(text)


def device_id(endpoint_name: str) -> str:
    """Return the device id that is made from *endpoint_name*: the name itself, if it can be one.

    Otherwise each run of refused characters becomes `-`, and 16 hex digits of the name's SHA-256 follow, so that no
    two names have one id.

    >>> device_id("urn:imei:1"), device_id("Tür 7/a")
    ('urn:imei:1', 'T-r-7-a-e868a87a1837beaa')
    """
    return endpoint_name if is_device_id(endpoint_name) else _with_digest(endpoint_name)


def _with_digest(endpoint_name: str) -> str:
    digest = hashlib.sha256(endpoint_name.encode()).hexdigest()[:16]
    return f"{REFUSED.sub('-', endpoint_name)[:KEPT]}-{digest}"


def device_ids(endpoint_names: Collection[str]) -> dict[str, str]:
    """Return the device id of each of *endpoint_names*, by one query if all are those of endpoints.

    A name that no endpoint has gets an id that no endpoint has: the one that would be made from it, if that is free. A
    client that calls itself by the device id of another endpoint must not report for that one.
    """
    endpoints: Any = Endpoint.objects.order_by()
    rows = endpoints.filter(endpoint_name__in=list(endpoint_names))
    found = dict(rows.values_list("endpoint_name", "device_id"))
    unknown = {name: _ids(name) for name in endpoint_names if name not in found}
    while unknown:
        made = {name: next(ids) for name, ids in unknown.items()}
        taken = set(endpoints.filter(device_id__in=list(made.values())).values_list("device_id", flat=True))
        found |= {name: free for name, free in made.items() if free not in taken}
        unknown = {name: ids for name, ids in unknown.items() if made[name] in taken}
    return found


def may_be_of(device_id: str, endpoint_name: str | None) -> bool:
    """Return False if the endpoint with *device_id* has another name than *endpoint_name*."""
    if endpoint_name is None:
        return True
    rows: Any = Endpoint.objects.filter(device_id=device_id)
    own = rows.values_list("endpoint_name", flat=True).first()
    return own in (None, endpoint_name)


def _ids(endpoint_name: str) -> Iterator[str]:
    """Yield the device id of a name, and then others without end, for the case that it is taken."""
    yield device_id(endpoint_name)
    for number in count():
        digest = hashlib.sha256(f"{number}\0{endpoint_name}".encode()).hexdigest()
        yield f"{REFUSED.sub('-', endpoint_name)[: KEPT - 48]}-{digest}"
