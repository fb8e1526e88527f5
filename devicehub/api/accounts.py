"""`/api/accounts/`: service accounts, with which ingest, backends and other programs connect to brokers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import Http404
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc.core.access import account_key
from authsvc.models import Account, Grant, InvalidUsername, LastLogin
from devicehub import provisioning, visibility
from devicehub.api import etags, overlaps, repeatable
from devicehub.api.addresses import address
from devicehub.api.all_sites import OfAllSites, tagged
from devicehub.api.base import ListView
from devicehub.api.fields import Closed, Moment, Selectable, SelectedOne
from devicehub.api.operations import IDEMPOTENCY_KEY, IF_MATCH, documented
from devicehub.api.overlaps import OverlapSerializer
from devicehub.api.problems import Problem, invalid
from devicehub.api.repeatable import Made
from devicehub.credentials.forms import check_year
from devicehub.kinds.identifiers import is_text

MOST_CLIENT_IDS = 100
CLIENT_IDS_HELP = "Client ids that it may connect with besides its username; an entry may end in `*`."
SUPERUSER_HELP = "No topic rule applies to a superuser. To make one needs the permission to add grants too."


class AccountSerializer(Selectable):
    """A service account, without its password."""

    username = serializers.CharField()
    client_ids = serializers.ListField(child=serializers.CharField(), help_text=CLIENT_IDS_HELP)
    is_active = serializers.BooleanField(help_text="An account that is not active cannot connect.")
    is_superuser = serializers.BooleanField(help_text=SUPERUSER_HELP)
    has_password = serializers.BooleanField(
        source="password_hash", help_text="Whether it has a password; false after it was revoked."
    )
    password_expires_at = Moment(allow_null=True)
    has_previous_password = serializers.BooleanField(
        source="has_overlap", help_text="Whether the previous password is valid beside the current one."
    )
    previous_valid_until = serializers.SerializerMethodField(
        help_text="The end of the previous password; null if it ends with the first use of the current one."
    )
    last_login_at = Moment(allow_null=True, source="login_at")
    created_at = Moment()

    def get_previous_valid_until(self, account: Account) -> datetime | None:
        """Return the end of the previous password."""
        return overlaps.shown(account.previous_valid_until) if account.has_overlap() else None


class ClientIdsField(serializers.ListField):
    """A list of client ids and of beginnings of them."""

    child = serializers.CharField(max_length=128, trim_whitespace=False)

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MOST_CLIENT_IDS, help_text=CLIENT_IDS_HELP, **options)


class ChangedAccountSerializer(Closed):
    """The values of an account that can be changed."""

    client_ids = ClientIdsField(required=False)
    is_active = serializers.BooleanField(required=False)
    is_superuser = serializers.BooleanField(required=False, help_text=SUPERUSER_HELP)
    password_expires_at = Moment(required=False, allow_null=True, validators=[check_year])


@extend_schema_serializer(
    examples=[
        OpenApiExample("A backend", {"username": "backend", "client_ids": ["backend-*"]}, request_only=True),
        OpenApiExample("The ingest worker", {"username": "ingest", "ingest": True}, request_only=True),
    ]
)
class NewAccountSerializer(Closed):
    """The values of a new account."""

    username = serializers.CharField(max_length=128, trim_whitespace=False)
    client_ids = ClientIdsField(required=False, default=list)
    is_superuser = serializers.BooleanField(required=False, default=False, help_text=SUPERUSER_HELP)
    password_expires_at = Moment(required=False, default=None, allow_null=True, validators=[check_year])
    ingest = serializers.BooleanField(
        required=False, default=False, help_text="Give it the grants and client ids that ingest needs."
    )
    clear_retained = serializers.BooleanField(
        required=False,
        default=False,
        help_text="With `ingest`: let it clear retained messages of deleted and disabled devices too.",
    )


class MadePasswordSerializer(AccountSerializer):
    """An account with its new password, which no other answer shows."""

    password = serializers.CharField(help_text="The password in clear text, only in this answer.")


class Accounts(OfAllSites, ListView):
    """All service accounts."""

    model = Account
    scopes = {"GET": "access:read", "POST": "access:write"}
    tag = "Accounts"
    serializer_class = AccountSerializer
    order = ("username",)

    def shown(self, rows: list[Any]) -> list[Any]:
        """Return *rows* with their last logins, which one query reads."""
        return with_logins(rows)

    @documented(operation_id="list_accounts", summary="List accounts", responses=AccountSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Return the accounts by username, without their passwords."""
        return self.list()

    @documented(
        operation_id="create_account",
        summary="Create an account",
        parameters=[IDEMPOTENCY_KEY],
        request=NewAccountSerializer,
        responses={201: MadePasswordSerializer},
    )
    @sensitive_variables()
    def post(self, request: Request) -> Response:
        """Create an account. The answer shows its password, and no later one does."""
        self.require(visibility.ADD, Account)
        values = self.body(NewAccountSerializer)
        if values["ingest"] or values["is_superuser"]:
            self.require(visibility.ADD, Grant)

        def make() -> Made:
            account, password = _create(values)
            return made(201, account, password)

        return repeatable.once(request, make)


class OfAccount(OfAllSites):
    """A view of one account."""

    model = Account
    tag = "Accounts"

    def account(self, action: str = visibility.VIEW) -> Account:
        """Return the account of the address, locked in a transaction. Raise Http404, Problem `not-allowed`."""
        username = self.kwargs["username"]
        if not is_text(username):
            raise Http404
        found: Account = self.found(action, username=username)
        return found

    def answer(self, account: Account) -> Response:
        """Return *account* with its tag."""
        with_logins([account])
        return tagged(AccountSerializer(account, context=self.context()).data, editable(account))


class OneAccount(OfAccount):
    """One service account."""

    scopes = {"GET": "access:read", "PATCH": "access:write", "DELETE": "access:write"}
    query = SelectedOne

    @documented(
        has_etag=True, operation_id="get_account", summary="Read an account", responses=AccountSerializer
    )
    def get(self, request: Request, username: str) -> Response:
        """Return the account, without its password."""
        return self.answer(self.account())

    @documented(
        has_etag=True,
        operation_id="change_account",
        summary="Change an account",
        parameters=[IF_MATCH],
        request=ChangedAccountSerializer,
        responses=AccountSerializer,
    )
    def patch(self, request: Request, username: str) -> Response:
        """Change the given values; the others stay. `is_active: false` refuses its connections, and keeps the rest."""
        values = self.body(ChangedAccountSerializer, partial=True)
        with transaction.atomic():
            account = self.account(visibility.CHANGE)
            if values.get("is_superuser") and not account.is_superuser:
                self.require(visibility.ADD, Grant)
            etags.check(request, editable(account))
            return self.answer(provisioning.change_account(account, **values))

    @documented(
        operation_id="delete_account",
        summary="Delete an account",
        parameters=[IF_MATCH],
        responses={204: None},
    )
    def delete(self, request: Request, username: str) -> Response:
        """Delete the account with its grants; it is unknown from now on."""
        with transaction.atomic():
            account = self.account(visibility.DELETE)
            etags.check(request, editable(account))
            provisioning.delete_account(account)
        return Response(status=204)


class AccountRotation(OfAccount):
    """A new password of an account."""

    scopes = {"POST": "access:write"}

    @documented(
        operation_id="rotate_account",
        summary="Rotate the password of an account",
        parameters=[IDEMPOTENCY_KEY],
        request=OverlapSerializer,
        responses={200: MadePasswordSerializer},
    )
    @sensitive_variables()
    def post(self, request: Request, username: str) -> Response:
        """Give the account a new password, which this answer shows alone. Its tokens end; `overlap` keeps the old one.

        An account that was revoked comes back in this way.
        """
        values = self.body(OverlapSerializer)

        def make() -> Made:
            account = self.account(visibility.CHANGE)
            return made(200, account, provisioning.rotate_account(account, valid_until=values["overlap"]))

        return repeatable.once(request, make)


class AccountRevocation(OfAccount):
    """The end of the passwords of an account."""

    scopes = {"POST": "access:write"}

    @documented(
        has_etag=True,
        operation_id="revoke_account",
        summary="Revoke the credentials of an account",
        request=None,
        responses=AccountSerializer,
    )
    def post(self, request: Request, username: str) -> Response:
        """End the passwords and tokens of the account at once. To come back, rotate its password."""
        with transaction.atomic():
            account = self.account(visibility.CHANGE)
            provisioning.revoke_account(account)
            return self.answer(account)


def _create(values: dict[str, Any]) -> tuple[Account, str]:
    """Return a new account and its password. Raise Problem."""
    try:
        return provisioning.create_account(
            values["username"],
            superuser=values["is_superuser"],
            ingest=values["ingest"],
            clear_retained=values["clear_retained"],
            client_ids=values["client_ids"],
            expires_at=values["password_expires_at"],
        )
    except provisioning.IdentityTaken as error:
        raise Problem("taken", str(error)) from error
    except provisioning.NotForIngest as error:
        raise invalid("clear_retained", str(error)) from error
    except InvalidUsername as error:
        raise invalid("username", " ".join(error.messages)) from error
    except ValidationError as error:
        raise invalid("client_ids", " ".join(error.messages)) from error


@sensitive_variables()
def made(status: int, account: Account, password: str) -> Made:
    """Return the one answer that shows *password*."""
    (account,) = with_logins([account])
    shown = {**AccountSerializer(account).data, "password": password}
    return Made(status, shown, address("api_account", username=account.username), holds_secret=True)


def with_logins(accounts: list[Any]) -> list[Any]:
    """Return *accounts*, each with the time of its last login as `login_at`."""
    keys = [account.key for account in accounts]
    logins = dict(LastLogin.objects.filter(key__in=keys).values_list("key", "at"))
    for account in accounts:
        account.login_at = logins.get(account_key(account.username))
    return accounts


def editable(account: Account) -> dict[str, Any]:
    """Return the values of *account* that people change, for its tag."""
    return {name: getattr(account, name) for name in provisioning.ACCOUNT_FIELDS}
