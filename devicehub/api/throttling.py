"""The limit of requests of one caller in a time, by DEVICEHUB_API_RATE."""

from __future__ import annotations

import time
from typing import Any

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from authsvc.caches import BoundedCache
from devicehub.api import callers
from devicehub.conf import settings

MAX_CALLERS = 20_000  # At most this many are counted; the one that was counted longest ago is dropped first.

# The beginning (monotonic) of the time in which the requests of a caller are counted, and their number.
_counts: BoundedCache[str, tuple[float, int]] = BoundedCache(lambda: MAX_CALLERS)


class RateThrottle(BaseThrottle):
    """A throttle that counts the requests of each key, user or device in this process."""

    _wait = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:
        """Return whether this request is within the limit, and count it."""
        limit = settings.api_rate
        if limit is None or not request.user.is_authenticated:
            return True
        now, caller = time.monotonic(), callers.name(request)
        since, count = _counts.get(caller, (now, 0))
        if now - since >= limit.seconds:
            since, count = now, 0
        self._wait = since + limit.seconds - now
        if count >= limit.messages:
            return False
        _counts.put(caller, (since, count + 1))
        return True

    def wait(self) -> float:
        """Return the seconds after which a refused request may be repeated."""
        return max(1.0, self._wait)
