"""The base of the admin's pages: unfold's where a project uses it, otherwise Django's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.text import capfirst

from authsvc.secret_columns import HidesSecrets
from devicehub.admin import widgets
from devicehub.admin.audited import Audited

if not TYPE_CHECKING and apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as Foundation
else:
    Foundation = admin.ModelAdmin

# Return the markup of a panel about an object, or "" for none: `format_html` or `render_to_string` make it.
Panel = Callable[[HttpRequest, Any], str]
Choices = Callable[[], Sequence[tuple[str, str]]]


class ModelAdmin(Audited, HidesSecrets, Foundation):  # type: ignore[type-arg]
    """A page of the admin that shows no secret column and does not count whole tables.

    The audit records its saves and deletions.

    *panels* stand above the form of an existing object, outside of the form, so a panel may hold forms of its own.
    A module adds one when it is imported: `DeviceAdmin.panels.append(panel)`. *lines*, *boxes* and *pairs* name
    columns of JSON whose fields are one entry per line, check boxes, and rows of key and value.
    """

    show_full_result_count = False
    change_form_template = "devicehub/admin/change_form.html"
    panels: ClassVar[list[Panel]] = []
    lines: Collection[str] = ()
    boxes: Mapping[str, Choices] = {}
    pairs: Collection[str] = ()

    class Media:
        css = {"all": ("devicehub/tokens.css", "devicehub/admin.css")}

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        """Render the form, with the panels of an existing object."""
        found = context.get("original")
        if found is not None:
            context["panels"] = [markup for panel in self.panels if (markup := panel(request, found))]
        answer: HttpResponse = super().render_change_form(request, context, *args, **options)
        return answer

    def formfield_for_dbfield(self, db_field: Any, request: Any, **options: Any) -> Any:
        """Return the form field of a column; those in *lines*, *boxes* and *pairs* get fields of ours."""
        about = {
            "label": capfirst(db_field.verbose_name),
            "help_text": db_field.help_text,
            "required": not db_field.blank,
        }
        if db_field.name in self.lines:
            return widgets.LinesField(**about)
        if db_field.name in self.boxes:
            return widgets.ChoiceBoxesField(choices=self.boxes[db_field.name], **about)
        if db_field.name in self.pairs:
            return widgets.PairsField(**about)
        return super().formfield_for_dbfield(db_field, request, **options)


class RecordAdmin(ModelAdmin):
    """The admin of rows that the system wrote. They can be read, not changed."""

    def has_add_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False
