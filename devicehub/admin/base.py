"""The base of the admin's pages: unfold's where a project uses it, otherwise Django's own.

Each page shows a user only the rows that devicehub.visibility allows, in lists, forms, actions, histories and choices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.db.models import DateTimeField, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from authsvc.models import AuditEntry
from authsvc.secret_columns import HidesSecrets
from devicehub import visibility
from devicehub.admin import audited, cells, texts, widgets
from devicehub.admin.audited import Audited
from devicehub.admin.notices import Notices, saying
from devicehub.admin.removing import Removes
from devicehub.credentials.forms import check_year
from devicehub.kinds.identifiers import is_text

if not TYPE_CHECKING and apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as Foundation
else:
    Foundation = admin.ModelAdmin

# Return the markup of a panel about an object, or "" for none: `format_html` or `render_to_string` make it.
Panel = Callable[[HttpRequest, Any], str]
Choices = Callable[[], Sequence[tuple[str, str]]]
ITSELF = "itself"


class Limited(HidesSecrets):
    """A mixin for every ModelAdmin: users who are limited to sites see the rows of their devices alone.

    *belongs_to* names the column that says to which device a row belongs: one with its key, or a foreign key; it is
    ITSELF for devices. A page without it is hidden from users who are limited to sites.
    """

    belongs_to: str | None = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)  # type: ignore[misc]
        if self.belongs_to is None:
            return rows.none() if visibility.is_limited(request.user) else rows
        if self.belongs_to == ITSELF:
            return visibility.of_sites(rows, request.user)
        if rows.model._meta.get_field(self.belongs_to).is_relation:
            sites = visibility.sites_of(request.user)
            return rows if sites is None else rows.filter(**{f"{self.belongs_to}__site__in": sites})
        return visibility.rows(rows, request.user, self.belongs_to)

    def _is_hidden(self, request: HttpRequest) -> bool:
        return self.belongs_to is None and visibility.is_limited(request.user)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return not self._is_hidden(request) and super().has_module_permission(request)  # type: ignore[misc]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return not self._is_hidden(request) and super().has_view_permission(request, obj)  # type: ignore[misc]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return not self._is_hidden(request) and super().has_add_permission(request)  # type: ignore[misc]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return not self._is_hidden(request) and super().has_change_permission(request, obj)  # type: ignore[misc]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return not self._is_hidden(request) and super().has_delete_permission(request, obj)  # type: ignore[misc]

    def formfield_for_foreignkey(self, db_field: Any, request: Any, **options: Any) -> Any:
        """Return the field of a foreign key, whose choices are the rows that the user sees in their own list."""
        own = self.admin_site._registry.get(db_field.remote_field.model)  # type: ignore[attr-defined]
        if own is not None and "queryset" not in options:
            options["queryset"] = own.get_queryset(request)
        return super().formfield_for_foreignkey(db_field, request, **options)  # type: ignore[misc]


class ModelAdmin(Removes, Notices, Audited, Limited, Foundation):  # type: ignore[type-arg]
    """A page of the admin in the look of the product, which shows no secret column and does not count whole tables.

    The audit records its saves and deletions.

    *panels* stand above the form of an existing object, outside of the form, so a panel may hold forms of its own.
    A module adds one when it is imported: `DeviceAdmin.panels.append(panel)`. *lines*, *boxes* and *pairs* name
    columns of JSON whose fields are one entry per line, check boxes, and rows of key and value. *empty_text* says
    what a list without rows would show, and what to do; *views* are links above a list, as label and query.
    """

    show_full_result_count = False
    list_filter_sheet = False
    change_form_template = "devicehub/admin/change_form.html"
    change_list_template = "devicehub/admin/change_list.html"
    empty_value_display = cells.EMPTY
    empty_text = "There is nothing here yet."
    views: Sequence[tuple[str, str]] = ()
    panels: ClassVar[list[Panel]] = []
    lines: Collection[str] = ()
    boxes: Mapping[str, Choices] = {}
    pairs: Collection[str] = ()

    class Media:
        css = {"all": ("devicehub/tokens.css", "devicehub/admin.css")}

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns of the list; ids, codes, numbers and times look as everywhere in the product."""
        names = super().get_list_display(request)
        return [cells.column(self.model, name, is_first=place == 0) for place, name in enumerate(names)]

    def get_views(self, request: HttpRequest) -> list[tuple[str, str, bool]]:
        """Return the links above the list: label, address, and whether it is the current one."""
        query = f"?{request.GET.urlencode()}"
        return [(label, found or "?", found == query or query == found + "?") for label, found in self.views]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, with links to its views and a text for an empty list."""
        more = {
            "title": capfirst(self.noun(2)),
            "views": self.get_views(request),
            "empty_text": self.empty_text,
            **(extra_context or {}),
        }
        answer: HttpResponse = super().changelist_view(request, more)
        return answer

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **options: Any
    ) -> HttpResponse | None:
        """Return the answer of an action. Raise BadRequest for a selected row that no row of the model can be."""
        key = self.model._meta.pk
        try:
            for selected in request.POST.getlist(ACTION_CHECKBOX_NAME):
                key.run_validators(
                    key.to_python(selected)
                )  # No database compares a number beyond its column.
        except ValidationError as error:
            raise BadRequest("A selected row is not one of this list.") from error
        answer: HttpResponse | None = super().response_action(request, queryset, *args, **options)
        return answer

    def all_panels(self) -> Sequence[Panel]:
        """Return the panels above the form of an object."""
        return self.panels

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row of the address, or None; PostgreSQL cannot compare a text that holds NUL."""
        return super().get_object(request, object_id, from_field) if is_text(object_id) else None

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list. Its whole count is known without a further query if there is no filter.

        Raise IncorrectLookupParameters for a NUL in the address, which PostgreSQL cannot compare.
        """
        if not all(is_text(text) for values in request.GET.lists() for text in values[1]):
            raise IncorrectLookupParameters
        found = super().get_changelist_instance(request)
        if not found.has_active_filters and not found.query:
            found.full_result_count = found.result_count
        if self.belongs_to not in (None, ITSELF) and not self.opts.get_field(self.belongs_to).is_relation:
            cells.find_devices(found.result_list, self.belongs_to)
        return found

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        """Render the form, with the panels of an existing object."""
        found = context.get("original")
        if found is not None:
            context["show_delete"] = False  # Our own link to the removal is the last thing of the page.
            context["remove"] = self.noun() if self.has_delete_permission(request, found) else ""
            context["subtitle"] = cells.title(found)
            context["has_history"] = not audited.covers(found) or self._sees_audit(request)
            context["panels"] = [markup for panel in self.all_panels() if (markup := panel(request, found))]
        answer: HttpResponse = super().render_change_form(request, context, *args, **options)
        return answer

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Redirect to the entries of the audit about the row. Show Django's page of a model that has none there."""
        row = self.get_object(request, unquote(object_id))
        if row is None or not audited.covers(row):
            answer: HttpResponse = super().history_view(request, object_id, extra_context)
            return answer
        if not (self.has_view_permission(request, row) and self._sees_audit(request)):
            raise PermissionDenied
        return HttpResponseRedirect(cells.list_url(AuditEntry, f"?{urlencode({'object': audited.key(row)})}"))

    def _sees_audit(self, request: HttpRequest) -> bool:
        page = self.admin_site._registry.get(AuditEntry)
        return page is not None and page.has_view_permission(request)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        """Return the class of the form, with a help text for each column that has none of its own.

        The label of a time names the zone in which it is shown and typed.
        """
        own = getattr(getattr(options.get("form", self.form), "Meta", None), "help_texts", None) or {}
        options["labels"] = {
            **texts.LABELS,
            **texts.labels_of_times(self.model),
            **(options.get("labels") or {}),
        }
        options["help_texts"] = {**texts.help_texts(self.model), **own, **(options.get("help_texts") or {})}
        return super().get_form(request, obj, change=change, **options)

    def formfield_for_dbfield(self, db_field: Any, request: Any, **options: Any) -> Any:
        """Return the form field of a column; those in *lines*, *boxes* and *pairs* get fields of ours."""
        about = {
            "label": options.get("label", capfirst(db_field.verbose_name)),
            "help_text": options.get("help_text", db_field.help_text),
            "required": not db_field.blank,
        }
        if db_field.name in self.lines:
            return widgets.LinesField(**about)
        if db_field.name in self.boxes:
            return widgets.ChoiceBoxesField(choices=self.boxes[db_field.name], **about)
        if db_field.name in self.pairs:
            return widgets.PairsField(**about)
        found = super().formfield_for_dbfield(db_field, request, **options)
        if found is not None and isinstance(db_field, DateTimeField):
            found.validators.append(check_year)
        return found

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Return the answer of the foundation, with our notice about the new object."""
        with saying(request, self._notice(request, obj, "added")):
            return super().response_add(request, obj, post_url_continue)

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """Return the answer of the foundation, with our notice about the saved object."""
        with saying(request, self._notice(request, obj, "saved")):
            return super().response_change(request, obj)

    def _notice(self, request: HttpRequest, obj: Any, verb: str) -> str:
        """Return the notice that *obj* was saved, with a link to its page if the user may open it."""
        shown: Any = cells.title(obj)
        if self.has_view_permission(request, obj):
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
            url = reverse(name, args=[quote(obj.pk)], current_app=self.admin_site.name)
            shown = format_html('<a class="dh-link" href="{}">{}</a>', url, shown)
        return format_html("{} {}: {}.", capfirst(self.noun()), verb, shown)


class RecordAdmin(ModelAdmin):
    """The admin of rows that the system wrote. They can be read, not changed."""

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        """Render the page, without a link to a history of changes: there are none."""
        return super().render_change_form(request, {**context, "is_record": True}, *args, **options)

    def has_add_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False


class EvidenceAdmin(RecordAdmin):
    """The admin of rows that say what happened. Retention and the erasure of a device delete them, and no page does."""

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        return False
