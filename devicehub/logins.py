"""Sign-ins of people: failures are limited by name and address, and password hashing by number.

The parts are named in the settings of django-axes, which has the table, the middleware and the commands.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import Any

import structlog
from asgiref.sync import sync_to_async
from axes.backends import AxesStandaloneBackend
from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_cool_off, get_credentials, get_failure_limit
from axes.models import AccessAttempt
from axes.signals import user_locked_out
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db.models import F, Sum
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from authsvc.serving import addresses

MANY_NAMES = 20  # An address is locked once so many names have failed from it.
MAX_ROWS = 10_000  # Rows in the table of axes; the oldest are deleted first.
MAX_WAITING = 8  # Sign-ins in one process that hash a password or wait for it.

log = structlog.get_logger(__name__)
_logged_at = float("-inf")
_room = threading.BoundedSemaphore(MAX_WAITING)
_hashing = threading.Lock()  # One hash at a time leaves the other cores to the requests of brokers.


class Backend(AxesStandaloneBackend, ModelBackend):  # type: ignore[misc]
    """Authentication as in Django, unless the name or the address is locked or too many sign-ins wait."""

    def authenticate(  # type: ignore[override]
        self, request: Any, username: str | None = None, password: str | None = None, **more: Any
    ) -> AbstractBaseUser | None:
        """Return the user, or None. Raise PermissionDenied, which answers the sign-in with a page of status 429."""
        if request is None:  # Not from the web: a test, or a program.
            return ModelBackend.authenticate(self, request, username, password, **more)
        AxesStandaloneBackend.authenticate(self, request, username, password, **more)
        if not _room.acquire(blocking=False):
            _refuse(request)
            raise PermissionDenied("Too many sign-ins at once.")
        try:
            with _hashing:
                # Other sign-ins may have failed meanwhile.
                AxesStandaloneBackend.authenticate(self, request, username, password, **more)
                return ModelBackend.authenticate(self, request, username, password, **more)
        finally:
            _room.release()

    async def aauthenticate(  # type: ignore[override]
        self, request: Any, username: str | None = None, password: str | None = None, **more: Any
    ) -> AbstractBaseUser | None:
        """Return what authenticate() returns, for asynchronous views; Django's own method would bypass the lock."""
        return await sync_to_async(self.authenticate)(request, username, password, **more)


class Handler(AxesDatabaseHandler):  # type: ignore[misc]
    """Locks for sign-ins: of a name at an address after AXES_FAILURE_LIMIT failures, of an address after MANY_NAMES.

    A name alone is never locked, so that failures elsewhere do not keep its owner out. Only the name, the address
    and the time of a failure are stored.
    """

    def get_failures(self, request: Any, credentials: dict[str, Any] | None = None) -> int:
        """Return the failures of this name from this address; if the address is locked, the limit."""
        failed = AccessAttempt.objects.filter(ip_address=request.axes_ip_address).order_by()
        if (since := _since(request)) is not None:
            failed = failed.filter(attempt_time__gt=since)
        if failed.values("username").distinct().count() >= MANY_NAMES:
            return int(get_failure_limit(request, credentials))
        own = failed.filter(username=name(request, credentials))
        return own.aggregate(total=Sum("failures_since_start"))["total"] or 0

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: Any = None, **_: Any
    ) -> None:
        """Count a failure and log it; do neither for a sign-in that is locked or was refused before it was tried."""
        if request is None or is_full(request) or self.is_whitelisted(request, credentials):
            return
        if self.is_locked(request, credentials):
            _lock_out(request, credentials)
            return
        username = name(request, credentials)
        self._count(request, username)
        failures = self.get_failures(request, credentials)
        login = {"username": username, "address": request.axes_ip_address}
        log.warning("login.failed", **login, failures=failures)
        if self.is_locked(request, credentials):
            _lock_out(request, credentials)
            log.warning("login.locked", **login)
            user_locked_out.send("axes", request=request, username=username, ip_address=login["address"])

    def user_logged_in(self, sender: Any, request: Any, user: AbstractBaseUser, **_: Any) -> None:
        """Clear the failures of this name at this address; those of other names stay."""
        username = name(request, get_credentials(user.get_username()))
        AccessAttempt.objects.filter(username=username, ip_address=request.axes_ip_address).delete()

    def user_logged_out(self, sender: Any, request: Any, user: Any, **_: Any) -> None:
        """Store nothing about a sign-out."""

    def _count(self, request: Any, username: str) -> None:
        key = {"username": username, "ip_address": request.axes_ip_address}
        now = timezone.now()
        again = {"failures_since_start": F("failures_since_start") + 1, "attempt_time": now}
        expired = AccessAttempt.objects.none()
        if (since := _since(request)) is not None:
            expired = AccessAttempt.objects.filter(attempt_time__lte=since)
        expired.delete()
        if AccessAttempt.objects.filter(**key).update(**again):
            return
        AccessAttempt.objects.bulk_create(
            [AccessAttempt(**key, user_agent="", failures_since_start=1, attempt_time=now)],
            ignore_conflicts=True,
        )
        surplus = AccessAttempt.objects.order_by("-attempt_time", "-pk")[MAX_ROWS:]
        if oldest := list(surplus.values_list("pk", flat=True)):
            AccessAttempt.objects.filter(pk__in=oldest).delete()


def name(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    """Return the name of a sign-in for logs and the table: the username of a user, or else a keyed digest.

    A text that is not a username may be a password, typed into the wrong field.
    """
    field = get_user_model().USERNAME_FIELD
    given = credentials or request.POST
    typed = str(given.get(field) or given.get("username") or "").replace("\x00", "")
    if typed and get_user_model()._default_manager.filter(**{field: typed}).exists():
        return typed[:255]
    return f"unknown-{salted_hmac('devicehub.logins', typed, algorithm='sha256').hexdigest()[:16]}"


def address(request: HttpRequest) -> str | None:
    """Return the address by which failures are counted; None if it cannot be determined."""
    return addresses.subscriber(addresses.of_request(request)) or None


def wait(request: HttpRequest) -> int:
    """Return the seconds after which a refused sign-in may be tried again; 0 for a lock that does not end by itself."""
    if is_full(request):
        return 1
    cool_off = get_cool_off(request)
    return int(cool_off.total_seconds()) if cool_off else 0


def _lock_out(request: Any, credentials: dict[str, Any]) -> None:
    request.axes_locked_out, request.axes_credentials = True, credentials
    request.sign_in_wait = wait(request)


def _refuse(request: Any) -> None:
    """Mark *request* as refused because too many sign-ins wait; log the first one in a minute."""
    global _logged_at
    AxesProxyHandler.update_request(request)
    request.axes_locked_out = request.sign_ins_full = True
    if time.monotonic() - _logged_at >= 60:
        _logged_at = time.monotonic()
        log.warning("login.too_many_at_once", address=request.axes_ip_address)


def is_full(request: HttpRequest) -> bool:
    """Return whether the sign-in of *request* was refused because too many others were waiting."""
    return bool(getattr(request, "sign_ins_full", False))


def _since(request: HttpRequest) -> datetime | None:
    """Return the time before which failures do not count any more; None if they count for ever."""
    cool_off = get_cool_off(request)
    return None if cool_off is None else timezone.now() - cool_off
