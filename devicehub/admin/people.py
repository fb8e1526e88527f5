"""The pages of users and groups: a role, the sites, and below them single permissions.

They stand in place of Django's own pages, unless a project registered others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.auth import admin as django_pages
from django.contrib.auth import forms as django_forms
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse

from devicehub import roles, sites
from devicehub.admin.base import ModelAdmin
from devicehub.admin.second_factor import RemovesSecondFactor
from devicehub.admin.widgets import ChoiceBoxesField, LinesField
from devicehub.kinds.registry import registry
from devicehub.models import SiteScope

if not TYPE_CHECKING and apps.is_installed("unfold"):
    from unfold import forms as own_forms
else:
    own_forms = django_forms

ROLES = (
    ("", "No role: only the single permissions below"),
    (roles.VIEWER, "Viewer: sees everything, changes nothing"),
    (roles.OPERATOR, "Operator: also changes devices, grants and accounts"),
    (roles.ADMINISTRATOR, "Administrator: also users, brokers and the audit"),
)
UNLIMITED = "Check this to limit the user to the chosen sites, or uncheck each of them."
NOT_YOURS = "You can give only rights that you have yourself."


class PersonForm(own_forms.UserChangeForm):  # type: ignore[type-arg]
    """The form of a user. Role and sites are stored as a group and as a row of SiteScope."""

    reader: Any = None  # The user of the page; PersonAdmin.get_form() sets it.
    role = forms.ChoiceField(
        choices=ROLES,
        required=False,
        widget=forms.RadioSelect(attrs={"class": "dh-boxes"}),
        help_text="A ready set of rights on the dashboard. This administration also needs Staff status, below.",
    )
    is_limited = forms.BooleanField(
        required=False,
        label="Limit to sites",
        help_text="The user then sees the devices of the sites below alone; with none of them, no device.",
    )
    sites = ChoiceBoxesField(required=False, help_text="The sites of a limited user.")
    other_sites = LinesField(
        required=False,
        help_text="Sites that the list above lacks, for example because no device is there yet. One per line.",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        scope = SiteScope.objects.filter(user_id=self.instance.pk).first()
        self.fields["role"].initial = roles.of(self.instance)
        self.fields["is_limited"].initial = scope is not None
        own = scope.sites if scope is not None else []
        offered = sorted({*sites.existing(registry), *own})
        self.fields["sites"].choices = [(site, site) for site in offered]  # type: ignore[attr-defined]
        self.fields["sites"].initial = own
        if "groups" in self.fields:
            self.fields["groups"].queryset = Group.objects.exclude(name__in=roles.ALL_ROLES)  # type: ignore[attr-defined]

    def clean_groups(self) -> list[Group]:
        """Return the chosen groups and the ready ones of the user, which only the role of the form changes."""
        return [*self.cleaned_data["groups"], *roles.ready(self.instance)]

    def clean(self) -> dict[str, Any]:
        """Refuse sites without a limit, and rights that the reader lacks, who could take them in this way."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not cleaned.get("is_limited") and (cleaned.get("sites") or cleaned.get("other_sites")):
            self.add_error("is_limited", UNLIMITED)
        if self.reader is None or self.reader.is_superuser:
            return cleaned
        before = self.instance.groups.all()
        added = [g for g in cleaned.get("groups", ()) if g not in before]
        if cleaned.get("role") and cleaned["role"] != roles.of(self.instance):
            added += Group.objects.filter(name=cleaned["role"])
        single = set(cleaned.get("user_permissions", ())) - set(self.instance.user_permissions.all())
        given = Permission.objects.filter(Q(group__in=added) | Q(pk__in=[p.pk for p in single]))
        if not has_all(self.reader, given):
            raise ValidationError(NOT_YOURS)
        return cleaned


def has_all(user: Any, permissions: QuerySet[Permission]) -> bool:
    """Return whether *user* has each of *permissions*."""
    names = permissions.values_list("content_type__app_label", "codename")
    return bool(user.has_perms({f"{label}.{codename}" for label, codename in names}))


class PersonAdmin(RemovesSecondFactor, django_pages.UserAdmin, ModelAdmin):  # type: ignore[type-arg,misc]
    """The page of a user, whom only people with all of the user's rights may change: a new password would give them."""

    form = PersonForm
    add_form = own_forms.AdminUserCreationForm if own_forms is django_forms else own_forms.UserCreationForm
    change_password_form = own_forms.AdminPasswordChangeForm
    list_display = ("username", "email", "role", "limit", "is_active", "last_login")
    list_filter = ("is_active", "is_staff", "groups")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        (
            "Role and sites",
            {"fields": ("role", "is_limited", "sites", "other_sites", "is_active", "is_staff")},
        ),
        (
            "Single permissions",
            {"classes": ("collapse",), "fields": ("is_superuser", "groups", "user_permissions")},
        ),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ()
    empty_text = "There are no users."

    @admin.display(description="Role")
    def role(self, user: User) -> str:
        return roles.of(user).removeprefix("DeviceHub ").capitalize() or self.empty_value_display

    @admin.display(description="Sites")
    def limit(self, user: User) -> str:
        scope = getattr(user, "site_scope", None)
        return "all" if scope is None else ", ".join(scope.sites) or "none"

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        found: QuerySet[User] = super().get_queryset(request)
        return found.select_related("site_scope").prefetch_related("groups")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change=change, **options)
        return type(form.__name__, (form,), {"reader": request.user})

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.readonly_fields if request.user.is_superuser else (*self.readonly_fields, "is_superuser")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Delete the users. Raise PermissionDenied if one of them has rights that the reader lacks."""
        if not all(_may_touch(request, user) for user in queryset):
            raise PermissionDenied
        super().delete_queryset(request, queryset)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002 - Django's name
        if not self.has_change_permission(request, self.get_object(request, id)):
            raise PermissionDenied
        with transaction.atomic():  # Django's page commits the password before the receivers record it.
            answer: HttpResponse = super().user_change_password(request, id, form_url)
        if answer.status_code == 302:
            self._say_password(request, id)
        return answer

    def _say_password(self, request: HttpRequest, number: str) -> None:
        """Put our notice about a new password in the place of Django's; its errors stay."""
        for found in list(messages.get_messages(request)):
            user = self.get_object(request, number)
            ours = user is not None and found.level == messages.SUCCESS
            state = "changed" if user is not None and user.has_usable_password() else "switched off"
            text = f"Password of {user} {state}." if ours else found.message
            messages.add_message(request, found.level, text, found.extra_tags)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save the groups, then the role and the sites, which the groups of the form do not contain."""
        super().save_related(request, form, formsets, change)
        if change:
            chosen = form.cleaned_data
            limit = sorted({*chosen["sites"], *chosen["other_sites"]}) if chosen["is_limited"] else None
            roles.assign(form.instance, chosen["role"], limit)


def _may_touch(request: HttpRequest, user: Any) -> bool:
    """Return whether the reader has all rights of *user*, whose password or mail address would give them."""
    if user is None or request.user.is_superuser:
        return True
    own = Permission.objects.filter(Q(group__user=user) | Q(user=user))
    return not user.is_superuser and has_all(request.user, own)


class GroupForm(forms.ModelForm):  # type: ignore[type-arg]
    reader: Any = None

    def clean_permissions(self) -> QuerySet[Permission]:
        """Return the permissions. Raise ValidationError for one that the reader of the page lacks."""
        chosen: QuerySet[Permission] = self.cleaned_data["permissions"]
        before = self.instance.permissions.all() if self.instance.pk else Permission.objects.none()
        if not self.reader.is_superuser and not has_all(
            self.reader, chosen.exclude(pk__in=[p.pk for p in before])
        ):
            raise ValidationError(NOT_YOURS)
        return chosen


class RoleAdmin(django_pages.GroupAdmin, ModelAdmin):
    """The page of a group. The three ready roles are set again by each migrate, so they can only be read."""

    form = GroupForm
    filter_horizontal = ()
    list_display = ("name",)
    nouns = ("role", "roles")
    empty_text = "There are no roles: manage.py migrate makes three."

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change=change, **options)
        return type(form.__name__, (form,), {"reader": request.user})

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and not _is_ready(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not _is_ready(obj)


def _is_ready(group: Any) -> bool:
    return group is not None and group.name in roles.ALL_ROLES


for model, old, new in (
    (User, django_pages.UserAdmin, PersonAdmin),
    (Group, django_pages.GroupAdmin, RoleAdmin),
):
    if type(admin.site._registry.get(model)) is old:
        admin.site.unregister(model)
        admin.site.register(model, new)
