"""The pages of denials."""

from __future__ import annotations

from django.contrib import admin

from authsvc.models import Denial
from devicehub.admin.base import EvidenceAdmin
from devicehub.admin.lists import lately


@admin.register(Denial)
class DenialAdmin(EvidenceAdmin):
    belongs_to = "principal"
    empty_text = "Nothing was denied. A refusal of a broker to a client shows here within a second or two."
    list_display = ("last_at", "username", "action", "summary", "reason", "count", "dialect", "address")
    list_filter = ("reason", "action", "dialect", lately("last_at"))
    search_fields = ("username", "client_id", "topic")

    @admin.display(description="topic", ordering="topic")
    def summary(self, denial: Denial) -> str:
        return denial.summary
