"""Failed authentications by address, and the limit after which further ones are refused for the rest of a minute."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

from authsvc.caches import BoundedCache

SECONDS = 60
MAX_ADDRESSES = 2_000  # At most this many are counted; the one that failed longest ago is dropped first.

log = structlog.get_logger(__name__)


class Failures:
    """The failures of a minute: *most_of_one* with one secret, and *most* different ones, of each address.

    A secret that is valid is never refused for failures of others: a fleet may share an address, and the secrets that
    are counted here cannot be guessed. *event* is logged once when an address has failed too often.
    """

    def __init__(self, event: str, most_of_one: Callable[[], int], most: Callable[[], int]) -> None:
        self._event, self._most_of_one, self._most = event, most_of_one, most
        self._found: BoundedCache[str, tuple[float, Counter[str]]] = BoundedCache(lambda: MAX_ADDRESSES)

    def wait(self, address: str, digest: str) -> int:
        """Return the seconds that *address* stays locked, for this secret or for all invalid ones; 0 if it is not."""
        since, failed = self._found.get(address, (0.0, Counter()))
        left = since + SECONDS - time.monotonic()
        if left > 0 and (failed[digest] >= self._most_of_one() or len(failed) >= self._most()):
            return int(left) + 1
        return 0

    def note(self, address: str, digest: str) -> None:
        """Count an invalid secret; log once when its address has sent too many."""
        now = time.monotonic()
        since, failed = self._found.get(address, (now, Counter()))
        if now - since >= SECONDS:
            since, failed = now, Counter()
        failed[digest] += 1
        self._found.put(address, (since, failed))
        if len(failed) == self._most() and failed[digest] == 1:
            log.warning(self._event, address=address)
