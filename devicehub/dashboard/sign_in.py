"""The sign-in of people: the middleware that knows ended sessions and asks for a second factor, and the pages of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth import get_user, logout
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.utils.functional import SimpleLazyObject
from django.views.decorators.cache import never_cache

from devicehub import second_factor, sessions
from devicehub.dashboard.access import strict
from devicehub.dashboard.errors import accepts_html

CODE_FIELD, LEAVE_FIELD = "second_factor_code", "second_factor_leave"
SIGN_OUTS = ("devicehub:logout", "admin:logout")
LONGEST_CODE = 16


class Sessions:
    """Middleware behind AuthenticationMiddleware: a session that has ended, or in which a code is due, has no user.

    While a code is due, each page for people is the one that asks for the code, at any address. So the second factor
    holds for every way to sign in, also for the admin of a project that leaves the dashboard out.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer *request* with the user that its session admits, looked up when it is needed."""
        if settings.SESSION_COOKIE_NAME in request.COOKIES:
            lazy: Any = SimpleLazyObject(partial(_admitted, request, request.user))
            request.user = lazy
            request.auser = sync_to_async(partial(_evaluated, request))
        response: HttpResponseBase | Awaitable[HttpResponseBase] = self.get_response(request)
        return response

    def process_view(
        self, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        """Return the page that asks for the code, if one is due. The check of the form's token has run before."""
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or getattr(view, "csrf_exempt", False):
            return None  # A view for programs sees nobody, and answers for itself when there is no database.
        if not sessions.is_code_due(request.session):
            return None
        if request.resolver_match is not None and request.resolver_match.view_name in SIGN_OUTS:
            return None  # Without a user a sign-out works.
        return ask(request)


def _admitted(request: HttpRequest, user: Any) -> Any:
    """Return *user* if the session admits it, or else an anonymous user."""
    return sessions.admitted(request.session, user, request)


def _evaluated(request: HttpRequest) -> Any:
    """Return the user of *request* after the queries that find it, for asynchronous views."""
    bool(request.user.is_authenticated)
    return request.user


@strict
@never_cache
def ask(request: HttpRequest) -> HttpResponse:
    """Ask for the code of the second factor, check it, or sign out."""
    if not accepts_html(request):
        return HttpResponse(
            "Enter the code of your second factor first.\n", status=403, content_type="text/plain"
        )
    user = get_user(request)
    is_over = not sessions.is_open(request.session, user) or not second_factor.is_on(user)
    if is_over or LEAVE_FIELD in request.POST:
        logout(request)
        return HttpResponseRedirect(request.get_full_path())
    is_wrong = False
    if request.method == "POST" and CODE_FIELD in request.POST:
        if second_factor.verify(user, request.POST[CODE_FIELD][:LONGEST_CODE]):
            del request.session[sessions.CODE_DUE]
            request.session.cycle_key()
            return HttpResponseRedirect(request.get_full_path())
        is_wrong = True
    return render(
        request, "devicehub/code.html", {"is_wrong": is_wrong, "field": CODE_FIELD, "leave": LEAVE_FIELD}
    )
