"""The pages of the audit. They can be read and exported; entries end by retention."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, PAGE_VAR
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.text import slugify

from authsvc import audit
from authsvc.audit import export, retention
from authsvc.models import AuditEntry
from devicehub.admin import cells
from devicehub.admin.base import EvidenceAdmin
from devicehub.admin.lists import BoundedPaginator, lately

RECENT = 2_000  # The filters offer the authors and addresses of so many of the newest entries,
OFFERED = 30  # and at most so many of them; a link may name any other.
DAYS = ("from", "until")  # The parameters of the first and the last day.
FIRST, LAST, DAY = date(2000, 1, 1), date(2199, 12, 31), timedelta(days=1)
LONGEST_DAY = 40  # Characters of a day in the address that are read.
SHOWN = 80  # characters of the values in a list
TABLE = (
    '<table class="dh-changes"><thead><tr><th scope="col">Column</th><th scope="col">Before</th>'
    '<th scope="col">After</th></tr></thead><tbody>{}</tbody></table>'
)


class ActionFilter(admin.SimpleListFilter):
    """Filters entries by one action, or by all of a group. It offers the actions below their groups."""

    title, parameter_name, template = "action", "action", "devicehub/admin/filter_groups.html"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(audit.labels().items())

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        chosen = self.value()
        if not chosen:
            return None
        of_group = next((words for name, words in audit.groups().items() if _all_of(name) == chosen), None)
        return queryset.filter(action=chosen) if of_group is None else queryset.filter(action__in=of_group)

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Yield the choice of all actions, and then a group at a time with its choices."""
        yield self._choice(changelist, None, "All")
        for name, words in audit.groups().items():
            found = [self._choice(changelist, _all_of(name), f"All of {name.lower()}")]
            found += [self._choice(changelist, word, text) for word, text in words.items()]
            yield {"display": name, "choices": found, "is_open": any(one["selected"] for one in found)}

    def _choice(self, changelist: Any, value: str | None, text: str) -> dict[str, Any]:
        name = str(self.parameter_name)
        query = changelist.get_query_string({name: value} if value else {}, [] if value else [name])
        return {"selected": self.value() == value, "query_string": query, "display": text}


def _all_of(group: str) -> str:
    """Return the value of the filter for all actions of *group*."""
    return f"all:{slugify(group)}"


class DaysFilter(admin.ListFilter):
    """Filters entries by the days of their times, in UTC, both with the first and the last day.

    The form for the days stands above the list. A day that cannot be read finds nothing, and the form says why.
    """

    title, template = "day", "devicehub/admin/filter_days.html"

    def __init__(self, request: Any, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        given = {name: str(params.pop(name, [""])[-1]).strip()[:LONGEST_DAY] for name in DAYS}
        self.used_parameters = {name: text for name, text in given.items() if text}
        skipped = (*DAYS, PAGE_VAR, ERROR_FLAG)
        self.others = [
            (name, text) for name, texts in request.GET.lists() if name not in skipped for text in texts
        ]
        self.error = ""
        self.days: dict[str, date | None] = dict.fromkeys(DAYS)
        for name, text in given.items():
            if not text:
                continue
            self.days[name] = _day(text)
            if self.days[name] is None:
                self.error = f"{text} is not a day: write it as 2026-01-31, from {FIRST.year} to {LAST.year}."
        if self.first and self.last and self.first > self.last:
            self.error = "The first day is after the last one: exchange them."

    @property
    def first(self) -> date | None:
        return self.days["from"]

    @property
    def last(self) -> date | None:
        return self.days["until"]

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return list(DAYS)

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Yield the way back to all days, if some are chosen."""
        if self.used_parameters:
            yield {"query_string": changelist.get_query_string(remove=DAYS)}

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if self.error:
            return queryset.none()
        if self.first:
            queryset = queryset.filter(at__gte=_midnight(self.first))
        return queryset.filter(at__lt=_midnight(self.last + DAY)) if self.last else queryset


def _day(text: str) -> date | None:
    """Return the day that *text* names, or None."""
    try:
        found = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None
    return found if FIRST <= found <= LAST else None


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


class RecentFilter(admin.SimpleListFilter):
    """A filter by a column of texts, which offers the values of recent entries that the user may see."""

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        column = str(self.parameter_name)
        recent = model_admin.get_queryset(request).order_by("-pk").values_list(column, flat=True)[:RECENT]
        found = sorted({value for value in recent if value})[:OFFERED]
        chosen = request.GET.get(column, "")
        return [(value, value) for value in dict.fromkeys([chosen, *found]) if value]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else None


class ActorFilter(RecentFilter):
    title, parameter_name = "author", "actor"


class ObjectFilter(admin.SimpleListFilter):
    """Filters entries by the key of their object. Only a link names one, such as the history of an object."""

    title, parameter_name = "object", "object"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get(self.parameter_name, "")
        return [(chosen, chosen)] if chosen else []

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        return queryset.filter(object_key=self.value()) if self.value() else None


class AddressFilter(RecentFilter):
    title, parameter_name = "address", "address"


@admin.register(AuditEntry)
class AuditAdmin(EvidenceAdmin):
    """The list and the page of entries, limited to the devices of the reader."""

    belongs_to = "object_key"
    paginator = BoundedPaginator
    change_list_template = "devicehub/admin/audit_list.html"
    list_display = ("time", "what", "on", "author", "changes_in_short", "reason_given")
    list_filter = (
        lately("at"),
        DaysFilter,
        ActionFilter,
        ActorFilter,
        "actor_kind",
        AddressFilter,
        ObjectFilter,
    )
    search_fields = ("object_key", "actor", "=address", "reason")
    search_help_text = "A part of an object, an author or a reason, or a whole address"
    fieldsets = (
        (None, {"fields": ("time", "what", "on", "author", "reason_given")}),
        ("Values", {"fields": ("changes",)}),
    )
    readonly_fields = ("time", "what", "on", "author", "reason_given", "changes")
    empty_text = "No change is recorded yet. Each change of credentials or rights leaves an entry here."

    @admin.display(description="Time", ordering="at")
    def time(self, entry: AuditEntry) -> str:
        return cells.until(entry.at)

    @admin.display(description="Action", ordering="action")
    def what(self, entry: AuditEntry) -> str:
        return audit.label(entry.action)

    @admin.display(description="Object", ordering="object_key")
    def on(self, entry: AuditEntry) -> str:
        return cells.changed(entry.object_key, getattr(entry, cells.FOUND, None))

    @admin.display(description="Author", ordering="actor")
    def author(self, entry: AuditEntry) -> str:
        kind = (
            "" if entry.actor_kind == AuditEntry.Kind.USER else f" ({entry.get_actor_kind_display().lower()})"
        )
        address = format_html(" {}", cells.code(entry.address)) if entry.address else ""
        return format_html("{}{}{}", entry.actor, kind, address)

    @admin.display(description="Reason")
    def reason_given(self, entry: AuditEntry) -> str:
        return entry.reason or cells.EMPTY

    @admin.display(description="Values")
    def changes_in_short(self, entry: AuditEntry) -> str:
        """Return the changed values in one line, cut to SHOWN characters."""
        texts = [f"{name}: {_arrow(old, new)}" for name, old, new in _values(entry)]
        line = ", ".join(texts)
        return f"{line[:SHOWN]}…" if len(line) > SHOWN else line or cells.EMPTY

    @admin.display(description="Before and after")
    def changes(self, entry: AuditEntry) -> str:
        """Return a table of the changed values."""
        rows = format_html_join("", '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>', _values(entry))
        return format_html(TABLE, rows) if rows else cells.EMPTY

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, with links to its exports and how long entries are kept."""
        query = f"?{request.GET.urlencode()}" if request.GET else ""
        forms = [
            (form.upper(), reverse("admin:authsvc_auditentry_export", args=[form]) + query)
            for form in export.FORMS
        ]
        context = {"exports": forms, "kept": _kept(), "bounds": (FIRST, LAST), **(extra_context or {})}
        answer = super().changelist_view(request, context)
        if isinstance(answer, TemplateResponse) and answer.context_data and "cl" in answer.context_data:
            answer.context_data["days"] = _days(answer.context_data["cl"])
        return answer

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.export)
        return [path("export/<str:form>/", view, name="authsvc_auditentry_export"), *super().get_urls()]

    def export(self, request: HttpRequest, form: str) -> HttpResponse | StreamingHttpResponse:
        """Return the entries of the list, with its filters and its search, as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if form not in export.FORMS:
            raise Http404
        try:
            found = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(reverse("admin:authsvc_auditentry_changelist"))
        if _days(found).error:
            return HttpResponseRedirect(cells.list_url(AuditEntry, f"?{request.GET.urlencode()}"))
        rows = found.queryset
        write, media_type = export.FORMS[form]
        texts = write(rows)
        name = f"audit-{timezone.now():%Y-%m-%d}.{form}"
        return StreamingHttpResponse(
            _without_blocking(texts) if isinstance(request, ASGIRequest) else texts,
            content_type=media_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
        )


def _days(changelist: Any) -> DaysFilter:
    """Return the filter of *changelist* by days."""
    return next(spec for spec in changelist.filter_specs if isinstance(spec, DaysFilter))


async def _without_blocking(texts: Iterator[str]) -> AsyncIterator[str]:
    """Yield *texts*, each made in a thread: of a plain iterator Django would collect all first."""
    while (text := await sync_to_async(lambda: next(texts, None))()) is not None:
        yield text


def _values(entry: AuditEntry) -> list[tuple[str, str, str]]:
    """Return column, value before and value after as texts."""
    before, after = entry.before or {}, entry.after or {}
    names = dict.fromkeys([*before, *after])
    return [(name.replace("_", " "), _text(before, name), _text(after, name)) for name in names]


def _text(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return ""
    value = values[name]
    if value is None or value == "":
        return "empty"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _arrow(old: str, new: str) -> str:
    return f"{old} → {new}" if old and new else new or f"{old} → "


def _kept() -> str:
    """Return how long entries are kept, for people."""
    row = retention.stored()
    if row is None or row.keep_seconds is None:
        return "Entries are kept for ever."
    return f"Entries are kept for {row.keep_seconds // 86_400:,} days (AUTHSVC_KEEP_AUDIT)."
