"""The pages of grants: the subject by choice, actions as check boxes, and a preview of what a grant opens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_POST, require_safe

from authsvc import granting
from authsvc.core import grants
from authsvc.core.access import account_key
from authsvc.core.grants import ActionSet
from authsvc.models import Grant
from devicehub import provisioning
from devicehub.admin import reach, suggestions
from devicehub.admin.base import ModelAdmin
from devicehub.admin.device_rights import DeviceFilter
from devicehub.admin.lists import ChoiceFilter
from devicehub.admin.widgets import ChoiceBoxesField
from devicehub.kinds.registry import registry
from devicehub.models import DeviceGroup

GROUPS = 1_000  # Groups that the form offers.
EVERYONE, TYPE, GROUP, DEVICE, ACCOUNT = "everyone", "type", "group", "device", "account"
KINDS = (
    (EVERYONE, "Everyone"),
    (TYPE, "A device type"),
    (GROUP, "A group of devices"),
    (DEVICE, "One device"),
    (ACCOUNT, "A service account"),
)
PLACEHOLDERS = (
    "A topic filter: + stands for one level, # for all that follow. Placeholders are filled for each client: "
    "{device_id}, {type} and {prefix} for devices, {username} and {client_id} for accounts too. Where a value is "
    "missing, the grant does not apply."
)


class Suggested(forms.TextInput):
    """A text field with suggestions: a list of the browser, which a script fills while somebody types."""

    def __init__(self, kind: str, url: str = "suggest/") -> None:
        plain = {"class": "dh-lines", "autocomplete": "off", "spellcheck": "false", "autocapitalize": "off"}
        super().__init__({**plain, "data-suggest": f"{url}?kind={kind}", "list": f"suggested-{kind}"})

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        """Return the input with its list."""
        found = super().render(name, value, attrs, renderer)
        return found + mark_safe(f'<datalist id="{self.attrs["list"]}"></datalist>')  # noqa: S308 - A constant.


def _types() -> list[tuple[str, str]]:
    return [("", "Choose a type"), *((kind.slug, kind.name) for kind in registry)]


def _groups() -> Iterator[tuple[str, str]]:
    yield "", "Choose a group"
    for slug, name in DeviceGroup.objects.order_by("name").values_list("slug", "name")[:GROUPS]:
        yield slug, f"{name} ({slug})"


class GrantForm(forms.ModelForm):  # type: ignore[type-arg]
    """A grant, whose subject must exist."""

    kind = forms.ChoiceField(
        label="For",
        choices=KINDS,
        initial=TYPE,
        widget=forms.RadioSelect(attrs={"class": "dh-boxes"}),
    )
    type = forms.ChoiceField(
        label="Device type",
        choices=_types,
        required=False,
        help_text="All devices of this type, also future ones.",
        widget=forms.Select(attrs={"class": "dh-lines"}),
    )
    group = forms.ChoiceField(
        choices=_groups,
        required=False,
        help_text="All members of this group, also future ones.",
        widget=forms.Select(attrs={"class": "dh-lines"}),
    )
    device = forms.CharField(
        required=False,
        max_length=260,
        help_text="A key such as weatherstation/STATION-001.",
        widget=Suggested(DEVICE),
    )
    account = forms.CharField(
        required=False,
        max_length=128,
        help_text="The username of a service account.",
        widget=Suggested(ACCOUNT),
    )
    actions = ChoiceBoxesField(
        choices=[(word, word.capitalize()) for word in grants.WORDS],
        help_text="A client that reads needs subscribe for its filter, and receive for the topics that arrive.",
        error_messages={"required": "Choose at least one action."},
    )

    class Meta:
        model = Grant
        fields = ("effect", "actions", "filter", "valid_from", "valid_until", "note")
        help_texts = {"filter": PLACEHOLDERS}
        widgets = {"effect": forms.RadioSelect(attrs={"class": "dh-boxes"})}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        given = self.initial.get("subject") or self.instance.subject
        if given:
            self.initial.update(_chosen(given))
        if isinstance(actions := self.initial.get("actions"), str) and actions:
            self.initial["actions"] = _words(actions)

    def clean_actions(self) -> str:
        """Return the chosen actions as the text of the column."""
        return ActionSet.of(self.cleaned_data["actions"]).value

    def clean(self) -> dict[str, Any] | None:
        """Set the subject of the grant, which must exist."""
        cleaned = super().clean()
        kind = self.cleaned_data.get("kind", "")
        subject = self._subject(kind)
        problem = _problem(kind, subject)
        if problem and kind:
            self.add_error(kind if kind != EVERYONE else None, problem)
        elif kind:
            self.instance.subject = subject
        return cleaned

    def _subject(self, kind: str) -> str:
        """Return the subject that was chosen; empty if none was."""
        if kind == EVERYONE:
            return "everyone"
        name = str(self.cleaned_data.get(kind) or "").strip()
        if not name:
            return ""
        if kind == DEVICE:
            return f"key:{_key_of(name)}"
        return f"key:{account_key(name)}" if kind == ACCOUNT else f"{kind}:{name}"

    def _get_validation_exclusions(self) -> set[str]:
        """Return the columns that are not checked; the subject is, once it is set, for the unique constraint."""
        found: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return found - {"subject"} if self.instance.subject and not self.errors else found


def _key_of(name: str) -> str:
    """Return the key of the device that *name* means: a key, or a device id that only one device has."""
    keys = [name] if "/" in name else sorted(provisioning.keys_of([name]).get(name, ()))
    return keys[0] if len(keys) == 1 else name


def _chosen(subject: str) -> dict[str, str]:
    """Return the fields of the form for *subject*."""
    form, _, name = subject.partition(":")
    if form != "key":
        return {"kind": form, form: name}
    prefix = account_key("")
    if name.startswith(prefix):
        return {"kind": ACCOUNT, ACCOUNT: name.removeprefix(prefix)}
    return {"kind": DEVICE, DEVICE: name}


def _words(actions: str) -> list[str]:
    try:
        return list(ActionSet(actions).words)
    except ValueError:
        return [word for word in actions.split(",") if word in grants.WORDS]


def _problem(kind: str, subject: str) -> str:
    """Return a sentence that says why *subject* cannot be chosen as *kind*; empty if it can."""
    if not subject:
        return "Choose one."
    name = subject.removeprefix("key:")
    if kind == DEVICE and ("/" not in name or name.startswith(account_key(""))):
        return f"{name} is not the key of a device: write its type too, such as weatherstation/{name}."
    return granting.subject_problem(subject)


class PeriodFilter(ChoiceFilter):
    title, parameter_name = "period", "period"
    options = {
        "now": ("In force", lambda: _begun() & _not_ended()),
        "later": ("In force later", lambda: Q(valid_from__gt=timezone.now())),
        "over": ("Ended", lambda: ~_not_ended()),
    }


class ActionFilter(ChoiceFilter):
    title, parameter_name = "action", "action"
    options = {
        word: (word.capitalize(), lambda word=word: Q(actions__contains=word) | Q(actions="all"))  # type: ignore[misc]
        for word in grants.WORDS
    }


def _of_ingest() -> Q:
    """Return the condition of grants as an ingest account gets them; their note alone could hide any other grant."""
    rules: dict[ActionSet, list[str]] = {}
    for actions, text in provisioning.ingest_rules(clear_retained=True):
        rules.setdefault(actions, []).append(text)
    found = Q(pk__in=[])
    for actions, filters in rules.items():
        found |= Q(actions=actions.value, filter__in=filters)
    is_noted = Q(note=provisioning.INGEST_NOTE, subject__startswith=f"key:{account_key('')}")
    return is_noted & Q(effect=Grant.Effect.ALLOW) & found


class MadeByFilter(ChoiceFilter):
    """Leaves out the grants that an ingest account gets by itself, which would bury those that people made.

    An address that names one row shows it, whatever it is.
    """

    title, parameter_name, default = "made by", "made", "people"
    options = {
        "people": ("People", lambda: ~_of_ingest()),
        "ingest": ("create_account --ingest", lambda: _of_ingest()),
        "all": ("Both", lambda: Q()),
    }

    def __init__(self, request: Any, *arguments: Any) -> None:
        self.default = "all" if "id" in request.GET else "people"
        super().__init__(request, *arguments)

    @property
    def hides(self) -> bool:
        return (self.value() or self.default) == "people"


def _begun() -> Q:
    return Q(valid_from=None) | Q(valid_from__lte=timezone.now())


def _not_ended() -> Q:
    return Q(valid_until=None) | Q(valid_until__gt=timezone.now())


def _hidden(request: HttpRequest, changelist: Any) -> dict[str, Any]:
    """Return the number of rows that the default of MadeByFilter leaves out, and the address of the list with them."""
    spec = next(spec for spec in changelist.filter_specs if isinstance(spec, MadeByFilter))
    if not spec.hides:
        return {}
    name = str(spec.parameter_name)
    hidden = changelist.get_queryset(request, exclude_parameters=[name]).filter(_of_ingest()).count()
    return {"hidden": hidden, "shown_url": changelist.get_query_string({name: "all"})}


@admin.register(Grant)
class GrantAdmin(ModelAdmin):
    form = GrantForm
    change_form_template = "devicehub/admin/grant.html"
    list_display = ("whom", "effect", "actions_in_words", "filter", "valid_from", "valid_until", "note")
    list_filter = (MadeByFilter, "effect", ActionFilter, PeriodFilter, DeviceFilter)
    change_list_template = "devicehub/admin/grant_list.html"
    search_fields = ("subject", "filter", "note")
    search_help_text = "Device id, username, type or group, topic filter or note"
    empty_text = "There is no grant yet. A device may use its own topics without one."
    fieldsets = (
        ("Subject", {"fields": ("kind", "type", "group", "device", "account")}),
        ("Rule", {"fields": ("effect", "actions", "filter")}),
        ("Period and note", {"fields": ("valid_from", "valid_until", "note")}),
    )

    class Media:
        js = ("devicehub/grants.js",)

    @admin.display(description="For", ordering="subject")
    def whom(self, grant: Grant) -> str:
        return grant.whom

    @admin.display(description="Actions", ordering="actions")
    def actions_in_words(self, grant: Grant) -> str:
        return ActionSet(grant.actions).sentence

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, with the number of grants of ingest accounts that it leaves out."""
        answer = super().changelist_view(request, extra_context)
        if isinstance(answer, TemplateResponse) and answer.context_data and "cl" in answer.context_data:
            answer.context_data |= _hidden(request, answer.context_data["cl"])
        return answer

    def get_urls(self) -> list[Any]:
        """Return the URLs of the admin, with the suggestions and the preview of the form below each of its pages."""
        wrap = self.admin_site.admin_view
        suggest, preview = wrap(require_safe(self.suggest_view)), wrap(require_POST(self.preview_view))
        return [
            path("add/suggest/", suggest, name="authsvc_grant_suggest"),
            path("<int:_pk>/change/suggest/", suggest),
            path("add/preview/", preview, name="authsvc_grant_preview"),
            path("<int:_pk>/change/preview/", preview),
            *super().get_urls(),
        ]

    def suggest_view(self, request: HttpRequest, _pk: int = 0) -> HttpResponse:
        """Return suggestions for the device or the account of a grant."""
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied
        return suggestions.answer(request)

    def preview_view(self, request: HttpRequest, _pk: int = 0) -> HttpResponse:
        """Return the topics that the grant in the form would open, and its devices; a script shows it in the form."""
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied
        form = self.get_form(request)(request.POST, instance=Grant.objects.filter(pk=_pk).first())
        is_valid = form.is_valid()
        context = {
            **self.admin_site.each_context(request),
            "title": "Preview of a grant",
            "form": form,
            "grant": form.instance,
            "reach": reach.of(form.instance.subject, form.cleaned_data["filter"]) if is_valid else None,
            "media": self.media,
        }
        name = "preview" if request.headers.get("x-requested-with") == "fetch" else "preview_page"
        answer = render(request, f"devicehub/admin/grant_{name}.html", context)
        answer["Cache-Control"] = "no-store"
        return answer

    def save_model(self, request: HttpRequest, obj: Grant, form: Any, change: bool) -> None:
        """Save the grant by the actions of granting, which record it."""
        values = {name: getattr(obj, name) for name in granting.FIELDS}
        if change:
            granting.change_grant(obj, **{**values, "actions": ActionSet(obj.actions)})
            return
        topic_filter, actions = values.pop("filter"), ActionSet(values.pop("actions")).words
        made = granting.create_grant(values.pop("subject"), actions, topic_filter, **values)
        obj.pk, obj._state.adding = made.pk, False

    def delete_model(self, request: HttpRequest, obj: Grant) -> None:
        granting.delete_grant(obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for grant in queryset:
            granting.delete_grant(grant)
