"""The device id of an endpoint. An endpoint name may have characters that a device id refuses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Any

from devicehub.kinds.identifiers import is_device_id, is_text

MOST = 255  # characters of an endpoint name
REFUSED = re.compile(r"[^A-Za-z0-9_:-]+")
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
    if is_device_id(endpoint_name):
        return endpoint_name
    digest = hashlib.sha256(endpoint_name.encode()).hexdigest()[:16]
    return f"{REFUSED.sub('-', endpoint_name)[:KEPT]}-{digest}"


def device_ids(endpoint_names: Collection[str]) -> dict[str, str]:
    """Return the device id of each of *endpoint_names*, by one query.

    A name that no endpoint has gets the id that would be made from it.
    """
    from devicehub.lwm2m.models import Endpoint

    endpoints: Any = Endpoint.objects
    rows = endpoints.filter(endpoint_name__in=list(endpoint_names)).order_by()
    found = dict(rows.values_list("endpoint_name", "device_id"))
    return {name: found.get(name) or device_id(name) for name in endpoint_names}
