"""The action that replays quarantined messages, with the report of the command."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from devicehub import visibility
from devicehub.ingest.replay import replay
from devicehub.models import QuarantinedMessage

MOST = 1_000  # Messages of one request; the command has no limit.


def may_replay(request: HttpRequest) -> bool:
    return bool(request.user.has_perm("devicehub.change_quarantinedmessage"))


class Replays:
    """A mixin for the admin of the quarantine: *Replay* stores the chosen messages if their cause is gone."""

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return may_replay(request)

    @admin.action(description="Replay selected messages", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Replay the messages of devices that the user may see, and report which of them failed again."""
        own = visibility.rows(QuarantinedMessage.objects.filter(pk__in=queryset.values("pk")), request.user)
        waiting = own.filter(replayed_at=None)
        if not waiting.exists():
            messages.info(request, "These messages were replayed before.")
            return
        last = waiting.order_by("pk").values_list("pk", flat=True)[MOST - 1 : MOST].first()
        if last is not None and waiting.filter(pk__gt=last).exists():
            waiting = waiting.filter(pk__lte=last)
            messages.info(request, f"The oldest {MOST:,} of the chosen messages; replay the rest again.")
        report = replay(waiting)
        for number, line in enumerate(report.lines()):
            messages.add_message(request, messages.WARNING if number else messages.INFO, line)
