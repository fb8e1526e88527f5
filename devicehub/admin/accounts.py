"""The pages of service accounts: create one in the browser, rotate and revoke its password, its grants and login."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import CharField, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Concat
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from authsvc.core.access import account_key
from authsvc.credentials import UNTIL_USED, end_of_old
from authsvc.models import Account, Grant, LastLogin
from devicehub import provisioning, visibility
from devicehub.admin import cells
from devicehub.admin.once import Act, Made, Shown, WithSecret
from devicehub.credentials.address import for_devices
from devicehub.credentials.forms import ReasonForm, RotateForm
from devicehub.credentials.literals import in_shell

GRANTS = 50  # Grants that the panel of an account lists.


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a new account. It refuses names of another identity."""

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        given = self.cleaned_data
        if "username" in given:
            try:
                provisioning.check_names(
                    Account(username=given["username"], client_ids=given.get("client_ids") or [])
                )
            except provisioning.IdentityTaken as error:
                raise ValidationError(str(error)) from error
        return cleaned


class ChooseForm(ReasonForm):
    """A password of one's own choice, typed twice."""

    field_order = ("password", "again", "reason")
    password = forms.CharField(
        label="Password",
        strip=False,
        max_length=1024,
        help_text=f"At least {provisioning.MIN_CHOSEN} characters. The old one ends at once.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label="The same again",
        strip=False,
        max_length=1024,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("password") != cleaned.get("again"):
            self.add_error("again", "The two passwords differ.")
        elif cleaned.get("password"):
            try:
                provisioning.check_chosen(cleaned["password"])
            except provisioning.UnusablePassword as error:
                self.add_error("password", str(error))
        return cleaned


def _rotate(account: Account, form: RotateForm) -> Made:
    had, was_unused = bool(account.password_hash), account.awaits_first_use()
    password = provisioning.rotate_account(account, valid_until=form.valid_until)
    until = account.previous_valid_until if account.has_overlap() else None
    ends = end_of_old(until, "password", was_unused=was_unused) if had else ""
    return Made(password, form.cleaned_data, ends)


def _choose(account: Account, form: forms.Form) -> str:
    provisioning.choose_account_password(account, form.cleaned_data["password"])
    return f"{account.username} has the password that you chose. The old one has ended."


def _end_overlap(account: Account, form: forms.Form) -> str:
    provisioning.end_account_overlap(account)
    return "The old password has ended."


def _revoke(account: Account, form: forms.Form) -> str:
    provisioning.revoke_account(account)
    return f"The credentials of {account.username} have ended: every further question about it is denied."


ACTS = (
    Act(
        "rotate",
        "Rotate the password",
        "The page that follows shows the new password, once.",
        "Rotate password",
        _rotate,
        RotateForm,
        icon="rotate",
        makes_secret=True,
        first="Make a password",
    ),
    Act(
        "choose",
        "Choose a password",
        "For a person or a program that cannot hold a generated one. Its hash is slow on purpose.",
        "Set this password",
        _choose,
        ChooseForm,
        icon="key",
    ),
    Act(
        "end_overlap",
        "End the old password",
        "A client that does not have the new password can then no longer log in.",
        "End the old password",
        _end_overlap,
        ReasonForm,
        Account.has_overlap,
    ),
    Act(
        "revoke",
        "Revoke",
        "Its password and its tokens end at once, and every further question about it is denied. To come back, make a "
        "new password.",
        "Revoke its credentials",
        _revoke,
        ReasonForm,
        lambda account: bool(account.password_hash),
        ends=True,
    ),
)


@admin.register(Account)
class AccountAdmin(WithSecret):
    list_display = ("username", "state", "last_login", "broker", "listed", "is_superuser", "created_at")
    list_filter = ("is_active", "is_superuser")
    search_fields = ("username",)
    readonly_fields = ("created_at",)
    lines = ("client_ids",)
    empty_text = "No service has an account yet. Add one for a backend, a dashboard or the ingest worker."
    acts = ACTS
    panel_template = "devicehub/_account.html"
    secret_name = "password"  # noqa: S105 - A word.

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        key = Concat(Value(account_key("")), OuterRef("username"), output_field=CharField())
        logins = LastLogin.objects.filter(key=key)
        rows: QuerySet[Any] = super().get_queryset(request)
        found: QuerySet[Any] = rows.annotate(
            login_at=Subquery(logins.values("at")), login_broker=Subquery(logins.values("broker"))
        )
        return found

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        """Return the class of the form; that of a new account checks its names."""
        if obj is None:
            options["form"] = AccountForm
        text = "Client ids it may connect as besides its username, one per line; an entry may end in *."
        options["help_texts"] = {"client_ids": text}
        return super().get_form(request, obj, change=change, **options)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # A superuser may use all topics, as if it had every grant.
        fixed = () if visibility.may(request.user, visibility.ADD, Grant) else ("is_superuser",)
        return ("username", *self.readonly_fields, *fixed) if obj else fixed

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = ("username", "client_ids", "is_active", "is_superuser", "password_expires_at")
        return [(None, {"fields": fields}), *([("Dates", {"fields": self.readonly_fields})] if obj else [])]

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        """Save the account by the actions of provisioning, which record it."""
        if change:
            values = {name: getattr(obj, name) for name in provisioning.ACCOUNT_FIELDS}
            provisioning.change_account(obj, **values)
            return
        super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Account) -> None:
        provisioning.delete_account(obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for account in queryset:
            provisioning.delete_account(account)

    def create(self, row: Account, typed: Mapping[str, Any]) -> str:
        """Save the new account and return its password."""
        return provisioning.add_account(row)

    def has_secret(self, row: Account) -> bool:
        return bool(row.password_hash)

    def shown(self, request: HttpRequest, row: Account, made: Made) -> Shown:
        """Return the username and the password of *row*."""
        values = [
            ("username", "Username", row.username, False),
            ("password", "Password", made.secret, True),
            ("client", "Client id", row.username, False),
        ]
        address = for_devices()
        variables = {
            "MQTT_HOST": address.host,
            "MQTT_PORT": str(address.port),
            "MQTT_TLS": str(int(address.tls)),
            "MQTT_CLIENT_ID": row.username,
            "MQTT_USERNAME": row.username,
            "MQTT_PASSWORD": made.secret,
        }
        text = "".join(f"{name}={in_shell(value)}\n" for name, value in variables.items())
        files = [{"id": "env", "label": ".env", "name": f"{row.username}.env", "text": text}]
        return Shown(f"Put this into {row.username}", "service account", values, files)

    def about(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the state of an account, its last login and its grants."""
        login = LastLogin.objects.filter(key=row.key).first()
        grants = Grant.objects.filter(subject=f"key:{row.key}")
        sees_grants = visibility.may(request.user, visibility.VIEW, Grant)
        return {
            "account": row,
            "state": _state(row, login.at if login else None),
            "login": login,
            "overlap": row.has_overlap(),
            "until": None if row.previous_valid_until == UNTIL_USED else row.previous_valid_until,
            "is_new_used": login is not None and login.used_password_of(row),
            "grants": list(grants[:GRANTS]) if sees_grants else None,
            "more_grants": max(grants.count() - GRANTS, 0),
            "grants_url": _url("grant_changelist", f"?made=all&q=key:{row.key}"),
            "add_grant_url": _url("grant_add", f"?subject=key:{row.key}")
            if visibility.may(request.user, visibility.ADD, Grant)
            else "",
        }

    @admin.display(description="State")
    def state(self, account: Any) -> str:
        return cells.toned(*_state(account, account.login_at))

    @admin.display(description="Last login", ordering="login_at")
    def last_login(self, account: Any) -> str:
        return cells.when(account.login_at, "never")

    @admin.display(description="Through", ordering="login_broker")
    def broker(self, account: Any) -> str:
        return account.login_broker or cells.EMPTY

    @admin.display(description="Client ids")
    def listed(self, account: Account) -> str:
        return cells.code(", ".join([account.username, *map(str, account.client_ids)]))


def _state(account: Account, login_at: datetime | None) -> tuple[str, str, str]:
    """Return glyph, tone and word of the state of an account that logged in last at *login_at*."""
    if not account.is_active:
        return "disabled", "off", "Disabled"
    if not account.password_hash:
        return "revoked", "bad", "No password"
    if account.password_expires_at is not None and account.password_expires_at <= timezone.now():
        return "expires", "warn", "Password expired"
    if login_at is None:
        return "never", "off", "Never logged in"
    return "done", "good", "Logged in"


def _url(page: str, query: str) -> str:
    try:
        return reverse(f"admin:authsvc_{page}") + query
    except NoReverseMatch:
        return ""
