"""The sessions of people: a user can list them, and end one without knowing its key.

A sign-in adds a row, and the session holds the number of the row. A session whose row is missing has ended: that
works with every session engine, and the table holds no key of a session. A session of a user with a second factor
also holds that a code is due, until the code was entered. An action that outlives the session needs the password again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY, authenticate
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from authsvc.serving import addresses
from authsvc.text import make_storable
from devicehub.models import SignIn

NUMBER = "devicehub_sign_in"
CODE_DUE = "devicehub_code_due"
MOST = 50  # Sessions of one user; one more ends the one that was used longest ago.
REFRESH = timedelta(minutes=5)  # The row of a session in use is written this often.


def watch() -> None:
    """Follow sign-ins and sign-outs from now on."""
    user_logged_in.connect(begin, dispatch_uid="devicehub.sessions.begin")
    user_logged_out.connect(end, dispatch_uid="devicehub.sessions.end")


def begin(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    """Add the row of a new session, and delete those of *user* that have expired or are too many."""
    now = timezone.now()
    SignIn.objects.filter(pk=_number(request.session)).delete()  # A second sign-in in the same session.
    row = SignIn.objects.create(user_id=user.pk, signed_in_at=now, last_seen=now, **_origin(request))
    request.session[NUMBER] = row.pk
    request.session.pop(CODE_DUE, None)
    own = SignIn.objects.filter(user_id=user.pk)
    own.filter(last_seen__lt=now - timedelta(seconds=settings.SESSION_COOKIE_AGE)).delete()
    # Their numbers are read first: a condition for the others would also hold for a sign-in at the same time.
    many = list(own.order_by("-last_seen", "-pk").values_list("pk", flat=True)[MOST:])
    own.filter(pk__in=many).delete()


def end(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    """Delete the row of the session that signs out."""
    SignIn.objects.filter(pk=_number(request.session)).delete()


def is_own_password(request: HttpRequest, password: str) -> bool:
    """Return whether *password* is that of the user of *request*, checked with the limits of a sign-in."""
    own: Any = request.user
    user = authenticate(request, username=own.get_username(), password=password)
    return user is not None and user.pk == own.pk


def wait_for_password(request: HttpRequest) -> int | None:
    """Return the seconds until the next password is checked; None if that of *request* was checked.

    Call it for a program: the middleware of axes then leaves the answer as it is, and does not send its page.
    """
    if not getattr(request, "axes_locked_out", False):
        return None
    request.axes_locked_out = False  # type: ignore[attr-defined]
    return max(1, getattr(request, "sign_in_wait", 1))  # As devicehub.logins sets it.


def is_open(session: Any, user: Any, request: HttpRequest | None = None) -> bool:
    """Return whether *session* of *user* has not ended, and note that *request* used it.

    A session without a number was opened by something that sends no signal; it gets a row at its first request.
    """
    row = SignIn.objects.filter(pk=_number(session), user_id=user.pk).first()
    if row is None:
        if NUMBER in session or request is None:
            return NUMBER not in session
        begin(None, request, user)
        return True
    now = timezone.now()
    if request is not None and row.last_seen < now - REFRESH:
        SignIn.objects.filter(pk=row.pk).update(last_seen=now, **_origin(request))
    return True


def admitted(session: Any, user: Any, request: HttpRequest | None = None) -> Any:
    """Return *user* if *session* is open and no code is due, or else an anonymous user."""
    if not user.is_authenticated or SESSION_KEY not in session:
        return user
    if is_code_due(session) or not is_open(session, user, request):
        return AnonymousUser()
    return user


def is_code_due(session: Any) -> bool:
    return CODE_DUE in session


def others(request: HttpRequest) -> QuerySet[SignIn]:
    """Return the other sessions of the user of *request*."""
    return _of_user(request.user).exclude(pk=_number(request.session))


def own(request: HttpRequest) -> SignIn | None:
    """Return the session of *request*, or None if nothing watches sessions."""
    return _of_user(request.user).filter(pk=_number(request.session)).first()


def end_others(request: HttpRequest) -> int:
    """End the other sessions of the user of *request*, and return their number."""
    return others(request).delete()[0]


def _of_user(user: Any) -> QuerySet[SignIn]:
    return SignIn.objects.filter(user_id=user.pk)


def _number(session: Any) -> int:
    """Return the number of the row of *session*, or 0, which no row has."""
    number = session.get(NUMBER)
    return number if isinstance(number, int) else 0


def _origin(request: HttpRequest) -> dict[str, str]:
    return {
        "address": make_storable(addresses.of_request(request), 45),
        "agent": make_storable(request.META.get("HTTP_USER_AGENT", ""), 200),
    }
