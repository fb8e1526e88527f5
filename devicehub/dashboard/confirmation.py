"""The page before an act that cannot be undone or reaches many things, and the check of its answer.

ask = Confirmation("Revoke the credentials of 12 devices?", "They cannot sign in ...", verb="Revoke 12 devices",
                   keep="Keep them", keep_url=devices, count=12, hidden=[("key", key) for key in keys])
if not is_confirmed(request, ask.count):
    return page(request, ask)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from devicehub.credentials.answers import no_store

TYPED_FROM = 11  # From this number of things on, the number is typed.


@dataclass(frozen=True)
class Confirmation:
    """A question before an act: it names the object and the number, and its buttons repeat the verb."""

    question: str
    text: str  # The effect, the objects, the time, and the way back.
    verb: str
    keep: str
    keep_url: str
    count: int = 1
    hidden: Sequence[tuple[str, str]] = ()
    names: Sequence[str] = ()  # The first few of the objects.
    action: str = ""  # The address of the act, if it is another one than that of this page.
    ends: bool = True  # The act ends something, so that its button is red.
    error: str = ""

    @property
    def is_typed(self) -> bool:
        return self.count >= TYPED_FROM


def is_confirmed(request: HttpRequest, count: int = 1) -> bool:
    """Return whether *request* is the answer of that page, with the number typed if *count* is large."""
    if request.method != "POST" or "confirmed" not in request.POST:
        return False
    typed = request.POST.get("typed", "").replace(",", "").strip()
    return count < TYPED_FROM or typed == str(count)


def is_answered(request: HttpRequest, form: Form, count: int) -> bool:
    """Return whether *request* is the answer of that page, and *form*, the fields on it, has no error."""
    return form.is_bound and form.is_valid() and is_confirmed(request, count)


def page_with(request: HttpRequest, ask: Confirmation, form: Form, **more: Any) -> HttpResponse:
    """Return the page that asks, with the fields of *form*; if they have no error, the typed number is wrong.

    *more* are `sites` to choose from, and of an act whose answer is a file `follow_url`, `follow` and `progress_url`,
    or for a rotation that has no number yet `rotation_url` and `rotation_progress_url`.
    """
    if form.is_bound and form.is_valid():
        ask = replace(ask, error=f"The number is not {ask.count:,}.")
    context = {"ask": ask, "form": form, **more}
    return no_store(render(request, "devicehub/confirm_many.html", context))


def page(request: HttpRequest, ask: Confirmation, template: str = "devicehub/confirm.html") -> HttpResponse:
    """Return the page that asks; after a number that does not fit it says so."""
    if request.method == "POST" and "confirmed" in request.POST:
        ask = replace(ask, error=f"The number is not {ask.count:,}.")
    return render(request, template, {"ask": ask})
