"""The action that dismisses quarantined messages, behind a page that asks."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import reverse

from authsvc import audit
from devicehub import visibility
from devicehub.admin.lists import ChoiceFilter
from devicehub.admin.replaying import may_replay
from devicehub.credentials.forms import ReasonForm
from devicehub.dashboard import confirmation
from devicehub.dashboard.confirmation import Confirmation
from devicehub.ingest.dismissal import MOST, dismiss
from devicehub.models import QuarantinedMessage

OF_ONE = "of_one"  # The page of one message asks, so that Keep leads back there.
EFFECT = (
    "Dismissed messages leave the list and the numbers of the overview, and a replay of all leaves them out. They are "
    "kept as long as the others: the filter “Dismissed” finds them, and Replay there still stores them."
)


class DismissedFilter(ChoiceFilter):
    """Filters quarantined messages by whether an operator has dismissed them; the list begins with those that wait."""

    title, parameter_name = "dismissed", "dismissed"
    options = {
        "no": ("Not dismissed", lambda: Q(dismissed_at=None)),
        "yes": ("Dismissed", lambda: Q(dismissed_at__isnull=False)),
        "all": ("All", Q),
    }
    default = "no"


def acts_panel(request: HttpRequest, row: QuarantinedMessage) -> str:
    """Return the buttons that replay and dismiss *row*, for a user who may, unless both were done."""
    if (row.replayed_at and row.dismissed_at) or not may_replay(request):
        return ""
    return render_to_string("devicehub/_quarantine_acts.html", {"row": row, "of_one": OF_ONE}, request)


class Dismisses:
    """A mixin for the admin of the quarantine: *Dismiss* asks, and then sets the chosen messages aside."""

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return may_replay(request)

    @admin.action(description="Dismiss", permissions=["dismiss"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        """Return the page that asks; its answer dismisses the messages of devices that the user may see."""
        chosen = QuarantinedMessage.objects.filter(pk__in=queryset.order_by().values("pk"))
        own = visibility.rows(chosen, request.user).filter(dismissed_at=None)
        count, list_url = own.count(), request.get_full_path()
        if not count:
            messages.info(request, "These messages were dismissed before.")
            return HttpResponseRedirect(list_url)
        form = ReasonForm(request.POST if "confirmed" in request.POST else None)
        if not confirmation.is_answered(request, form, count):
            return _ask(request, own, form, count)
        with audit.because(form.cleaned_data["reason"]):
            done = dismiss(own)
        rest = " These are the oldest of the chosen ones; dismiss the rest again." if done < count else ""
        messages.success(request, f"{_in_words(done)} dismissed.{rest}")
        return HttpResponseRedirect(list_url)


def _ask(
    request: HttpRequest, rows: QuerySet[QuarantinedMessage], form: ReasonForm, count: int
) -> HttpResponse:
    list_url, words = request.get_full_path(), _in_words(count)
    keys = request.POST.getlist(ACTION_CHECKBOX_NAME)
    page = reverse("admin:devicehub_quarantinedmessage_change", args=[keys[0]])
    hidden = [("action", "dismiss"), ("select_across", request.POST.get("select_across", "0"))]
    ask = Confirmation(
        question=f"Dismiss {words}?",
        text=EFFECT if count <= MOST else f"{EFFECT} At most {MOST:,} at a time.",
        verb=f"Dismiss {words}",
        keep="Keep it" if count == 1 else "Keep them",
        keep_url=page if OF_ONE in request.POST else list_url,
        count=count,
        hidden=[*hidden, *((ACTION_CHECKBOX_NAME, key) for key in keys)],
        ends=False,
    )
    return confirmation.page_with(request, ask, form)


def _in_words(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"
