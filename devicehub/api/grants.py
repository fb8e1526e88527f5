"""`/api/grants/`: the rules of operators, which allow or deny topics beside those that devices have anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django.db import transaction
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc import granting
from authsvc.core import grants
from authsvc.core.grants import ActionSet
from authsvc.models import Grant
from devicehub import visibility
from devicehub.api import etags, repeatable
from devicehub.api.addresses import address
from devicehub.api.all_sites import OfAllSites, tagged
from devicehub.api.base import ListView
from devicehub.api.fields import Choice, Closed, Moment, Selectable, SelectedOne
from devicehub.api.filters import TextFilter
from devicehub.api.operations import IDEMPOTENCY_KEY, IF_MATCH, documented
from devicehub.api.problems import Problem
from devicehub.api.repeatable import Made
from devicehub.credentials.forms import check_year

FILTER_HELP = (
    "A topic filter of MQTT. Its levels may be `{device_id}`, `{type}`, `{prefix}`, `{username}` and `{client_id}`, "
    "which each client fills with its own."
)
ACTIONS_HELP = (
    "A client that reads needs `subscribe` for its filter, and `receive` for the topics that arrive."
)
SUBJECT_HELP = (
    "`everyone`, `type:<type>`, `group:<group>`, `key:<type>/<device_id>` or `key:account/<username>`."
)


class ActionsField(serializers.ListField):
    """The actions of a grant, one or more."""

    child = Choice(choices=list(grants.WORDS))

    def __init__(self) -> None:
        super().__init__(min_length=1, max_length=len(grants.WORDS), help_text=ACTIONS_HELP)

    def to_representation(self, value: str) -> list[str]:
        """Return the actions in the text of the column."""
        return list(ActionSet(value).words)


class GrantSerializer(Selectable):
    """A grant: a rule that allows or denies actions on topics."""

    id = serializers.IntegerField()
    subject = serializers.CharField(help_text=SUBJECT_HELP)
    effect = serializers.ChoiceField(
        choices=Grant.Effect.values, help_text="A deny wins over every allow that overlaps it."
    )
    actions = ActionsField()
    filter = serializers.CharField(help_text=FILTER_HELP)
    note = serializers.CharField()
    valid_from = Moment(allow_null=True, help_text="In force from then on; null is from the beginning.")
    valid_until = Moment(allow_null=True, help_text="In force until then; null is without an end.")
    created_at = Moment()


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Let a service read all readings",
            {
                "subject": "key:account/backend",
                "actions": ["subscribe", "receive"],
                "filter": "things/weatherstation/+/data",
                "note": "the yield forecast",
            },
            request_only=True,
        )
    ]
)
class NewGrantSerializer(Closed):
    """The values of a new grant, or some values of a changed one."""

    subject = serializers.CharField(max_length=260, help_text=SUBJECT_HELP)
    effect = Choice(choices=Grant.Effect.values, required=False, default=Grant.Effect.ALLOW.value)
    actions = ActionsField()
    filter = serializers.CharField(max_length=512, trim_whitespace=False, help_text=FILTER_HELP)
    note = serializers.CharField(max_length=255, required=False, default="", allow_blank=True)
    valid_from = Moment(required=False, default=None, allow_null=True, validators=[check_year])
    valid_until = Moment(required=False, default=None, allow_null=True, validators=[check_year])


class GrantFilter(django_filters.FilterSet):
    """The filters of the list of grants."""

    class Meta:
        model = Grant
        fields: tuple[str, ...] = ()

    subject = TextFilter(help_text="Grants of exactly this subject, such as `key:account/backend`.")


class Grants(OfAllSites, ListView):
    """All grants."""

    model = Grant
    scopes = {"GET": "access:read", "POST": "access:write"}
    tag = "Grants"
    serializer_class = GrantSerializer
    filterset_class = GrantFilter

    @documented(operation_id="list_grants", summary="List grants", responses=GrantSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Return the grants, the newest first, also those that are not in force now."""
        return self.list()

    @documented(
        operation_id="create_grant",
        summary="Create a grant",
        parameters=[IDEMPOTENCY_KEY],
        request=NewGrantSerializer,
        responses={201: GrantSerializer},
    )
    def post(self, request: Request) -> Response:
        """Create a grant. It is in force at once, or from `valid_from` on. Its subject must exist."""
        self.require(visibility.ADD, Grant)
        values = self.body(NewGrantSerializer)

        def make() -> Made:
            given = dict(values)
            with refusing():
                grant = granting.create_grant(
                    given.pop("subject"), given.pop("actions"), given.pop("filter"), **given
                )
            return Made(201, GrantSerializer(grant).data, address("api_grant", number=grant.pk))

        return repeatable.once(request, make)


class OneGrant(OfAllSites):
    """One grant."""

    model = Grant
    scopes = {"GET": "access:read", "PATCH": "access:write", "DELETE": "access:write"}
    tag = "Grants"
    query = SelectedOne

    @documented(has_etag=True, operation_id="get_grant", summary="Read a grant", responses=GrantSerializer)
    def get(self, request: Request, number: int) -> Response:
        """Return the grant."""
        return self._shown(self.found(pk=number))

    @documented(
        has_etag=True,
        operation_id="change_grant",
        summary="Change a grant",
        parameters=[IF_MATCH],
        request=NewGrantSerializer,
        responses=GrantSerializer,
    )
    def patch(self, request: Request, number: int) -> Response:
        """Change the given values; the others stay."""
        values = self.body(NewGrantSerializer, partial=True)
        with transaction.atomic():
            grant = self.found(visibility.CHANGE, pk=number)
            etags.check(request, _editable(grant))
            with refusing():
                return self._shown(granting.change_grant(grant, **values))

    @documented(
        operation_id="delete_grant", summary="Delete a grant", parameters=[IF_MATCH], responses={204: None}
    )
    def delete(self, request: Request, number: int) -> Response:
        """Delete the grant; its rule ends at once."""
        with transaction.atomic():
            grant = self.found(visibility.DELETE, pk=number)
            etags.check(request, _editable(grant))
            granting.delete_grant(grant)
        return Response(status=204)

    def _shown(self, grant: Grant) -> Response:
        return tagged(GrantSerializer(grant, context=self.context()).data, _editable(grant))


def _editable(grant: Grant) -> dict[str, Any]:
    return {name: getattr(grant, name) for name in granting.FIELDS}


@contextmanager
def refusing() -> Iterator[None]:
    """Raise Problem `conflict` for a grant that exists already; other errors of the actions pass."""
    try:
        yield
    except ValidationError as error:
        errors = [each for found in getattr(error, "error_dict", {}).values() for each in found]
        if any(each.code in ("unique", "unique_together") for each in errors):
            raise Problem(
                "conflict",
                "There is a grant with this subject, effect, actions and filter already. Change that one.",
            ) from error
        raise
