"""The pages of denials. They can be read and dismissed; what is done about one happens on the pages of the dashboard.

A project without `devicehub.urls` has no such pages: the form of a grant in the admin, and the command that explains,
take their place.
"""

from __future__ import annotations

import shlex
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.text import Truncator

from authsvc.models import Denial
from devicehub import visibility
from devicehub.admin import cells
from devicehub.admin.base import EvidenceAdmin, Panel
from devicehub.admin.lists import ChoiceFilter, lately
from devicehub.denials import allowing, reasons
from devicehub.denials.dismissal import dismiss
from devicehub.denials.explained import ACTIONS, explain_denials, rule_label

LONGEST = 60  # Characters of a topic in the list.


class DismissedFilter(ChoiceFilter):
    """Filters denials by whether an operator has dismissed them."""

    title, parameter_name = "dismissed", "dismissed"
    options = {
        "no": ("No", lambda: Q(dismissed_at=None)),
        "yes": ("Yes", lambda: Q(dismissed_at__isnull=False)),
    }


def cause_panel(request: HttpRequest, denial: Denial) -> str:
    """Return the reason of *denial*, the nearest rule, and what its reader may do about it."""
    now = explain_denials([denial], request.user).get(denial.pk)
    may_dismiss = visibility.may(request.user, visibility.CHANGE, Denial) and denial.dismissed_at is None
    context = {
        "denial": denial,
        "sentence": reasons.sentence(denial),
        "now": now,
        "rule_label": rule_label(now) if now is not None else "",
        "page_url": _address("devicehub:denial", denial.pk),
        "allow_url": _allow_url(request.user, denial) if now is not None and not now.allowed else "",
        "explain": _explain_command(denial),
        "dismiss_url": _address("admin:authsvc_denial_changelist") if may_dismiss else "",
    }
    return render_to_string("devicehub/admin/denial.html", context, request)


def _allow_url(user: Any, denial: Denial) -> str:
    """Return where a grant that would allow *denial* is filled in; "" if none is offered to *user*."""
    if not allowing.may_allow(user) or allowing.problem(denial):
        return ""
    if url := _address("devicehub:allow_denial", denial.pk):
        return url
    proposal = allowing.propose(denial)
    chosen = proposal.choices[0]
    initial = {"subject": chosen.subject, "actions": denial.action, "filter": chosen.filter}
    form = _address("admin:authsvc_grant_add")
    return f"{form}?{urlencode(initial)}" if form else ""


def _explain_command(denial: Denial) -> str:
    """Return the command that explains *denial*, for a shell; "" if it is about no name or no topic."""
    action = reasons.action(denial)
    if not denial.username or action not in ACTIONS:
        return ""
    words = [denial.username, action, *filter(None, [denial.topic])]
    # The client chose these texts, and one that begins with a dash would be an option of the command.
    marked = ["--", *words] if any(word.startswith("-") for word in words) else words
    return shlex.join(["python", "manage.py", "explain", *marked])


def _address(name: str, *arguments: object) -> str:
    try:
        return reverse(name, args=arguments)
    except NoReverseMatch:
        return ""


@admin.register(Denial)
class DenialAdmin(EvidenceAdmin):
    belongs_to = "principal"
    panels: ClassVar[list[Panel]] = [cause_panel]
    empty_text = "Nothing was denied. A refusal of a broker to a client shows here within a second or two."
    list_display = ("last_at", "who", "doing", "why", "summary", "reason", "count", "broker")
    list_filter = ("reason", "action", "broker", "dialect", DismissedFilter, lately("last_at"))
    search_fields = ("username", "principal", "client_id", "topic")
    search_help_text = "Username, device id, client id or topic"
    readonly_fields = ("who", "doing", "dismissed_at")
    fieldsets = (
        ("Sent by the client", {"fields": ("who", "username", "client_id", "doing", "topic")}),
        ("How it was refused", {"fields": ("reason", "rule", "broker", "dialect", "address")}),
        ("When", {"fields": ("first_at", "last_at", "count", "dismissed_at")}),
    )
    actions = ("dismiss",)

    @admin.display(description="Client", ordering="username")
    def who(self, denial: Denial) -> str:
        """Return the device, the account, or the name that no one has."""
        if denial.principal:
            return cells.device_of(denial, "principal")
        return cells.code(denial.username) if denial.username else "Unknown"

    @admin.display(description="Action", ordering="action")
    def doing(self, denial: Denial) -> str:
        return "" if denial.is_rest else reasons.action(denial)

    @admin.display(description="Topic", ordering="topic")
    def summary(self, denial: Denial) -> str:
        return denial.summary if denial.is_rest else cells.code(Truncator(denial.topic).chars(LONGEST))

    @admin.display(description="Why")
    def why(self, denial: Denial) -> str:
        return reasons.sentence(denial)

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return visibility.may(request.user, visibility.CHANGE, Denial)

    @admin.action(description="Dismiss selected denials", permissions=["dismiss"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet[Denial]) -> None:
        """Hide the chosen causes until they happen again."""
        count = dismiss(queryset)
        self.message_user(request, f"{count:,} dismissed. A cause comes back if it happens again.")
