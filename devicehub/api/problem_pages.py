"""`/problems/<code>`: a page about each type of problem, for people who follow the `type` of an answer.

A project with its pages below a prefix includes this module at its root too, because the types name that path.
"""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import path
from django.views.decorators.http import require_safe

from devicehub.api.problems import KINDS, PREFIX
from devicehub.content_security import restrict


@login_not_required
@require_safe
def show(request: HttpRequest, code: str) -> HttpResponse:
    """Return the title and the advice of the problem *code*, for anybody."""
    if code not in KINDS:
        raise Http404
    kind = KINDS[code]
    context = {"type": f"{PREFIX}{code}", **kind._asdict(), "advice": kind.advice.split("`")}
    response = HttpResponse(render_to_string("devicehub/problem.html", context))
    restrict(response)
    return response


urlpatterns = [path("problems/<slug:code>", show, name="problem")]
