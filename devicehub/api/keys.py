"""`/api/keys/`: the API keys of people's programs."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from django.views.decorators.debug import sensitive_variables
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import api_keys, sessions, visibility
from devicehub.api import repeatable
from devicehub.api.addresses import address
from devicehub.api.base import ApiView, ListView
from devicehub.api.fields import Choice, Closed, Moment, Selectable, SelectedOne
from devicehub.api.filters import TextFilter
from devicehub.api.operations import IDEMPOTENCY_KEY, documented
from devicehub.api.problems import Problem, invalid
from devicehub.api.repeatable import Made
from devicehub.models import ApiKey

LONGEST_PASSWORD = 1_000  # characters


class KeySerializer(Selectable):
    """An API key, without its secret."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    owner = serializers.CharField(source="owner.get_username")
    start = serializers.CharField(help_text="The first characters of the key.")
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=list(api_keys.SCOPES)))
    site = serializers.CharField(help_text="The site that the key is limited to, or an empty text.")
    created_at = Moment()
    expires_at = Moment(allow_null=True)
    last_used_at = Moment(allow_null=True, help_text="The last use, to the minute.")


class NewKeySerializer(Closed):
    """The members of a request for a new key."""

    name = serializers.CharField(max_length=100)
    scopes = serializers.ListField(
        child=Choice(choices=list(api_keys.SCOPES)),
        min_length=1,
        max_length=len(api_keys.SCOPES),
    )
    site = serializers.CharField(max_length=100, required=False, default="", allow_blank=True)
    expires_at = Moment(required=False, default=None, allow_null=True)
    password = serializers.CharField(
        max_length=LONGEST_PASSWORD,
        required=False,
        write_only=True,
        trim_whitespace=False,
        help_text="Your password, with a session, since a key outlives it. Leave it out with a key.",
    )


class MadeKeySerializer(KeySerializer):
    """A new key, with the secret that no other answer shows."""

    key = serializers.CharField(help_text="The key in clear text, only in this answer.")


class KeyFilter(django_filters.FilterSet):
    """The filters of the list of keys."""

    class Meta:
        model = ApiKey
        fields: tuple[str, ...] = ()

    owner = TextFilter(field_name="owner__username", help_text="The user whose keys these are.")


class Keys(ListView):
    """The keys of the caller; those of all users for people who may view API keys."""

    scopes = {"GET": "access:read", "POST": "access:write"}
    tag = "Keys"
    serializer_class = KeySerializer
    filterset_class = KeyFilter

    def rows(self) -> QuerySet[Any]:
        """Return the keys that the caller may see."""
        return visible(self.request)

    @documented(operation_id="list_keys", summary="List API keys", responses=KeySerializer(many=True))
    def get(self, request: Request) -> Response:
        """Return the keys, the newest first."""
        return self.list()

    @documented(
        operation_id="create_key",
        summary="Create an API key",
        parameters=[IDEMPOTENCY_KEY],
        request=NewKeySerializer,
        responses={201: MadeKeySerializer},
    )
    @sensitive_variables()
    def post(self, request: Request) -> Response:
        """Make a key with which a program acts as you. The answer shows it, and no later one does.

        A key can make keys with at most its own scopes, site and expiry. With a session the body has your password
        too, unless you sign in without one; too many wrong ones are refused, as on the sign-in page.
        """
        values = self.body(NewKeySerializer)
        password = values.pop("password", None)
        _refuse_more(request, values)
        _confirm(request, password)

        def make() -> Made:
            try:
                made = api_keys.create(
                    request.user,
                    values["name"],
                    values["scopes"],
                    site=values["site"],
                    expires_at=values["expires_at"],
                )
            except api_keys.InvalidKey as error:
                raise invalid(error.field, str(error)) from error
            shown = {**KeySerializer(made.row).data, "key": made.secret}
            return Made(201, shown, address("api_key", number=made.row.pk), holds_secret=True)

        return repeatable.once(request, make, undigested=("password",))


class OneKey(ApiView):
    """One key."""

    scopes = {"GET": "access:read", "DELETE": "access:write"}
    tag = "Keys"
    query = SelectedOne

    @documented(operation_id="get_key", summary="Read an API key", responses=KeySerializer)
    def get(self, request: Request, number: int) -> Response:
        """Return the key, without its secret."""
        return Response(KeySerializer(self._row(number), context=self.context()).data)

    @documented(operation_id="delete_key", summary="Delete an API key", responses={204: None})
    def delete(self, request: Request, number: int) -> Response:
        """Delete the key; it is refused from now on."""
        row = self._row(number)
        if row.owner_id != request.user.pk:
            self.require(visibility.DELETE, ApiKey)
        api_keys.delete(row)
        return Response(status=204)

    def _row(self, number: int) -> ApiKey:
        row = visible(self.request).filter(pk=number).first()
        if row is None:
            raise Http404
        return row


def visible(request: Request) -> QuerySet[ApiKey]:
    """Return the keys of the caller; all keys if they may view keys and are not limited to sites.

    A key with a site sees those of its site alone: it is not to end the keys of its owner for other sites.
    """
    rows = ApiKey.objects.select_related("owner")
    user: Any = request.user
    if isinstance(request.auth, ApiKey) and request.auth.site:
        rows = rows.filter(site=request.auth.site)
    if visibility.may(user, visibility.VIEW, ApiKey) and not visibility.is_limited(user):
        return rows
    return rows.filter(owner_id=user.pk)


def _refuse_more(request: Request, values: dict[str, Any]) -> None:
    """Raise Problem `not-allowed` if a key would make one that may do more than itself."""
    own = request.auth
    if not isinstance(own, ApiKey):
        return
    more = [scope for scope in values["scopes"] if scope not in own.scopes]
    if more:
        raise Problem(
            "not-allowed", f"This key lacks the scope {more[0]}, so it cannot give it to another key."
        )
    if own.site and values["site"] != own.site:
        raise Problem(
            "not-allowed", f"This key is limited to {own.site}, so a key that it makes has that site too."
        )
    expires_at = values["expires_at"]
    if own.expires_at is not None and (expires_at is None or expires_at > own.expires_at):
        raise Problem("not-allowed", "A key that this one makes has to expire no later than itself.")


@sensitive_variables()
def _confirm(request: Request, password: str | None) -> None:
    """Raise Problem unless *password* is that of the user of a session, or there is none beside a key.

    The page for new keys has the same rule: a user whose password is elsewhere is not asked for it.
    """
    user: Any = request.user
    if isinstance(request.auth, ApiKey):
        if password is not None:
            raise invalid("password", "Leave it out: a program needs no password beside its key.")
        return
    if not user.has_usable_password():
        return
    if not password:
        raise invalid(
            "password", "Give your password: a session alone makes no key, since a key outlives it."
        )
    if sessions.is_own_password(request._request, password):
        return
    wait = sessions.wait_for_password(request._request)
    if wait is not None:
        text = "Too many passwords were wrong, or too many people sign in at once."
        raise Problem("too-many-requests", text, headers={"Retry-After": str(wait)})
    raise invalid("password", "This is not your password. Capitals and small letters count.")
