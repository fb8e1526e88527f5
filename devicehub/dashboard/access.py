"""The access to pages: a sign-in, a permission to see devices, and the strict policy.

    @page
    @require_safe
    def denials(request: HttpRequest) -> HttpResponse: ...

The view itself limits its rows and its changes by `devicehub.visibility`, in GET and in POST.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from devicehub import visibility
from devicehub.content_security import restrict

View = Callable[..., HttpResponseBase]


def strict(view: View) -> View:
    """Decorate *view*: its page runs and loads only files of this site, and nothing inline."""

    @wraps(view)
    def answer(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        restrict(response)
        return response

    return answer


def signed_in(view: View) -> View:
    """Decorate *view*: its page needs a sign-in, and no cache or history keeps it."""
    return strict(never_cache(login_required(view)))


def page(view: View) -> View:
    """Decorate *view* as signed_in() does; a user who may see no device gets an explanation instead."""

    @wraps(view)
    def answer(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if not visibility.sees_something(request.user):
            return render(request, "devicehub/no_permission.html", status=403)
        return view(request, *args, **kwargs)

    return signed_in(answer)
