"""Adoption: endpoints that a Leshan server names, and that do not exist here, become devices. Off by default.

An adopted endpoint has no MQTT credentials. Without adoption its messages go to the quarantine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import structlog
from django.core.exceptions import ValidationError
from django.db import IntegrityError

from authsvc import audit
from devicehub import provisioning
from devicehub.conf import settings
from devicehub.db import bulk
from devicehub.lwm2m import names
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint

# A stranger who may register at the Leshan server must not fill the table.
MOST, SECONDS = 600, 60.0  # So many endpoints are created in this time by one process.

log = structlog.get_logger(__name__)


class Allowance:
    """The endpoints that may still be created in the present minute; any thread may take of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since, self._taken = float("-inf"), 0

    def take(self, now: float | None = None) -> bool:
        """Return whether one more endpoint may be created, and count it."""
        now = time.monotonic() if now is None else now
        with self._lock:
            if now - self._since >= SECONDS:
                self._since, self._taken = now, 0
            if self._taken == MOST:
                return False
            self._taken += 1
            if self._taken == MOST:
                log.warning(
                    "lwm2m.adoption_paused", endpoints=MOST, seconds=round(self._since + SECONDS - now)
                )
            return True

    def clear(self) -> None:
        """Begin anew; for tests."""
        self._since = float("-inf")


allowance = Allowance()


def adopt(endpoint_names: Iterable[str]) -> None:
    """Create the endpoints of *endpoint_names* that do not exist, if DEVICEHUB_LWM2M_ADOPT allows it.

    A name that cannot be created is logged and left out, and so are names beyond MOST in a minute: the messages of
    these endpoints go to the quarantine.
    """
    if not settings.lwm2m_adopt:
        return
    wanted = [name for name in dict.fromkeys(endpoint_names) if names.is_endpoint_name(name)]
    rows: Any = Endpoint.objects.filter(bulk.among("endpoint_name", wanted)).order_by()
    existing = set(rows.values_list("endpoint_name", flat=True))
    for name in wanted:
        if name not in existing and allowance.take():
            _create(name)


def _create(name: str) -> None:
    """Create the endpoint *name*. Another process may have created it at this moment."""
    endpoint: Any = Endpoint(device_id=names.device_id(name), endpoint_name=name)
    try:
        with audit.acting(audit.system("adoption")):
            provisioning.add_without_credentials(KIND, endpoint)
    except (provisioning.IdentityTaken, ValidationError, IntegrityError) as error:
        rows: Any = Endpoint.objects
        if not rows.filter(endpoint_name=name).exists():
            log.warning("lwm2m.not_adopted", endpoint=name, error=str(error).partition("\n")[0])
    else:
        log.info("lwm2m.adopted", endpoint=name)
