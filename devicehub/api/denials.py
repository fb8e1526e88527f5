"""`/api/denials/`: the attempts of clients that were refused."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc.models import Denial
from devicehub.api.base import ApiView, ListView
from devicehub.api.fields import Moment, Selectable, SelectedOne
from devicehub.api.filters import PeriodFilterSet, TextFilter, TruthFilter
from devicehub.api.operations import documented
from devicehub.denials import reasons
from devicehub.denials.attempts import visible


class DenialSerializer(Selectable):
    """Refusals of one client for one reason, counted."""

    id = serializers.IntegerField()
    reason = serializers.CharField(help_text="The code of the reason, such as `no_grant`.")
    sentence = serializers.SerializerMethodField(help_text="The reason in words.")
    principal = serializers.CharField(help_text="The key of the device or account, or an empty text.")
    username = serializers.CharField()
    client_id = serializers.CharField()
    action = serializers.SerializerMethodField(
        help_text="`connect`, `publish`, `subscribe`, `receive`, or the name that the broker gives the question."
    )
    topic = serializers.CharField()
    rule = serializers.CharField(help_text="The rule that decided, or an empty text.")
    dialect = serializers.CharField(help_text="The form in which the broker asked, such as `go-auth`.")
    broker = serializers.CharField(help_text="The broker that asked last.")
    address = serializers.CharField(help_text="The address from which the broker asked last.")
    count = serializers.IntegerField()
    first_at = Moment()
    last_at = Moment()
    dismissed_at = Moment(
        allow_null=True,
        help_text="The time at which somebody dismissed it; null again once it happens again.",
    )

    def get_sentence(self, denial: Denial) -> str:
        """Return the reason in words."""
        return reasons.sentence(denial)

    def get_action(self, denial: Denial) -> str:
        """Return the action in the words of MQTT; an empty text for a row of the rest."""
        return "" if denial.is_rest else reasons.action(denial)


class DenialFilter(PeriodFilterSet):
    """The filters of the list of denials. Their table is bounded, so each of them may read it whole."""

    moment = "last_at"

    class Meta:
        model = Denial
        fields: tuple[str, ...] = ()

    principal = TextFilter(help_text="The key of the device or account.")
    reason = TextFilter(help_text="The code of the reason.")
    dialect = TextFilter(help_text="The form in which the broker asked.")
    broker = TextFilter(help_text="The name of the broker that asked last.")
    dismissed = TruthFilter(
        field_name="dismissed_at",
        lookup_expr="isnull",
        exclude=True,
        help_text="Whether somebody dismissed them.",
    )


class Denials(ListView):
    """The denials that the caller may see."""

    scopes = {"GET": "access:read"}
    tag = "Access"
    serializer_class = DenialSerializer
    filterset_class = DenialFilter
    order = ("-last_at", "-id")

    def rows(self) -> QuerySet[Any]:
        """Return the denials that the caller may see."""
        return visible(self.request.user)

    @documented(operation_id="list_denials", summary="List denials", responses=DenialSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Return the refused attempts by cause, the latest first. `from` and `to` select by the last time."""
        return self.list()


class OneDenial(ApiView):
    """One denial."""

    scopes = {"GET": "access:read"}
    tag = "Access"
    query = SelectedOne

    @documented(operation_id="get_denial", summary="Read a denial", responses=DenialSerializer)
    def get(self, request: Request, number: int) -> Response:
        """Return the denial."""
        row = visible(request.user).filter(pk=number).first()
        if row is None:
            raise Http404
        return Response(DenialSerializer(row, context=self.context()).data)
