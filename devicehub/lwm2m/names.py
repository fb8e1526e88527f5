"""The device id of an endpoint. An endpoint name may have characters that a device id refuses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Any

from django.db.models import Q

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
    return endpoint_name if is_device_id(endpoint_name) else _with_digest(endpoint_name)


def _with_digest(endpoint_name: str) -> str:
    digest = hashlib.sha256(endpoint_name.encode()).hexdigest()[:16]
    return f"{REFUSED.sub('-', endpoint_name)[:KEPT]}-{digest}"


def device_ids(endpoint_names: Collection[str]) -> dict[str, str]:
    """Return the device id of each of *endpoint_names*, by one query.

    A name that no endpoint has gets the id that would be made from it; or, if an endpoint with another name has that,
    one with a digest, which no device has: its messages are those of an unknown device.
    """
    from devicehub.lwm2m.models import Endpoint

    made = {name: device_id(name) for name in endpoint_names}
    endpoints: Any = Endpoint.objects
    rows = endpoints.filter(Q(endpoint_name__in=list(made)) | Q(device_id__in=list(made.values()))).order_by()
    found = dict(rows.values_list("endpoint_name", "device_id"))
    taken = set(found.values())
    return {
        name: found.get(name) or (own if own not in taken else _with_digest(name))
        for name, own in made.items()
    }
