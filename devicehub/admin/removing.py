"""The removal of rows in the admin: a page that says what would go, and a notice in the words of the product."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.actions import delete_selected
from django.db.models import QuerySet
from django.forms.boundfield import BoundField
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.text import capfirst

from authsvc import audit
from devicehub.admin import audited, cells
from devicehub.admin.notices import saying
from devicehub.credentials.forms import ReasonForm
from devicehub.dashboard.confirmation import TYPED_FROM, is_confirmed

REASON = "reason"
REMOVED = "_devicehub_removed"  # The attribute of a request with the name of the row that it removes.
ACTION = "delete_selected"  # Django's name of the action.
TEMPLATE = "devicehub/admin/remove.html"


class Removes:
    """A mixin for a ModelAdmin: its rows are removed one by one, or many at once after a number that is typed.

    The page before a removal takes a reason, which the audit keeps.
    """

    opts: Any
    nouns: tuple[str, str] | None = None  # One row and several in words, if not those of the model.
    delete_confirmation_template: Any = TEMPLATE
    delete_selected_confirmation_template: Any = TEMPLATE

    def noun(self, count: int = 1) -> str:
        """Return the word for *count* rows."""
        one, several = self.nouns or (str(self.opts.verbose_name), str(self.opts.verbose_name_plural))
        return one if count == 1 else several

    def in_words(self, count: int) -> str:
        """Return *count* rows in words, such as `1,284 grants`."""
        return f"{count:,} {self.noun(count)}"

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the actions of the list. The removal comes last."""
        found: dict[str, Any] = super().get_actions(request)  # type: ignore[misc]
        if found.pop(ACTION, None) is not None:
            found[ACTION] = (remove_many, ACTION, "Remove")
        return found

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        """Return the page that says what would go; a POST removes the row."""
        words = {
            "title": "Remove",
            "question": f"Remove this {self.noun()}?",
            "verb": f"Remove this {self.noun()}",
            "keep": "Keep it",
            "them": "it",
            "reason": _reason(self, request),
        }
        with audit.because(request.POST.get(REASON, "")):
            return super().delete_view(request, object_id, {**words, **(extra_context or {})})  # type: ignore[misc]

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Log the deletions, and keep the name of the last row: that of a device is its id, without a state."""
        for row in queryset:
            setattr(request, REMOVED, cells.title(row))
        return super().log_deletions(request, queryset)  # type: ignore[misc]

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: Any) -> Any:
        """Return the answer of the foundation, with our notice about the removed row."""
        name = getattr(request, REMOVED, obj_display)
        with saying(request, format_html("{} removed: {}.", capfirst(self.noun()), name)):
            return super().response_delete(request, obj_display, obj_id)  # type: ignore[misc]


@admin.action(permissions=["delete"], description="Remove")
def remove_many(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
    """Return the page that says what would go. Its answer removes the rows; a large number must be typed there."""
    count = queryset.count()
    is_wrong = "post" in request.POST and count >= TYPED_FROM and not is_confirmed(request, count)
    if is_wrong:
        asked: Any = request.POST.copy()
        del asked["post"]
        request.POST = asked
    words = model_admin.in_words(count)
    with saying(request, f"{words} removed."), audit.because(request.POST.get(REASON, "")):
        answer = delete_selected(model_admin, request, queryset)
    if isinstance(answer, TemplateResponse):
        answer.context_data = {
            **(answer.context_data or {}),
            "title": "Remove",
            "question": f"Remove {words}?",
            "verb": f"Remove {words}",
            "keep": "Keep it" if count == 1 else "Keep them",
            "them": "it" if count == 1 else "them",
            "typed": count if count >= TYPED_FROM else 0,
            # A form has a bound of its fields, so it names all rows of the list by its query, as the list did.
            "is_across": request.POST.get("select_across") == "1",
            "is_wrong": is_wrong,
            "reason": _reason(model_admin, request),
        }
    return answer


def _reason(model_admin: Any, request: HttpRequest) -> BoundField | None:
    """Return the field for the reason of a removal, as typed before; None if the audit does not record the model."""
    if not audited.is_recorded(model_admin.model):
        return None
    return ReasonForm({REASON: request.POST.get(REASON, "")})[REASON]
