"""`/api/brokers/`: the brokers that may ask this service about their clients."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max, Sum
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc import broker_tokens
from authsvc.models import Broker, BrokerUse
from devicehub import visibility
from devicehub.api import etags, overlaps, repeatable
from devicehub.api.addresses import address
from devicehub.api.all_sites import OfAllSites, tagged
from devicehub.api.base import ListView
from devicehub.api.fields import Closed, Moment, Selectable, SelectedOne
from devicehub.api.operations import IDEMPOTENCY_KEY, IF_MATCH, documented
from devicehub.api.overlaps import OverlapSerializer
from devicehub.api.problems import Problem
from devicehub.api.repeatable import Made

MOST_ENTRIES = 100
DIALECTS_HELP = "The dialects in which it may ask, such as `go-auth`; an empty list is all."
NETWORKS_HELP = "The networks from which it may ask, such as `10.0.0.0/8`; an empty list is all."


class BrokerSerializer(Selectable):
    """A broker, without its token."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    dialects = serializers.ListField(child=serializers.CharField(), help_text=DIALECTS_HELP)
    networks = serializers.ListField(child=serializers.CharField(), help_text=NETWORKS_HELP)
    is_active = serializers.BooleanField(
        help_text="The questions of a broker that is not active are refused."
    )
    is_revoked = serializers.BooleanField(
        help_text="Whether its tokens were revoked, and it has got none since."
    )
    has_previous_token = serializers.BooleanField(
        source="has_overlap", help_text="Whether the previous token is valid beside the current one."
    )
    previous_valid_until = serializers.SerializerMethodField(
        help_text="The end of the previous token; null if it ends with the first use of the current one."
    )
    last_asked_at = Moment(allow_null=True, source="asked_at")
    questions = serializers.IntegerField(
        source="asked", help_text="The number of its questions, counted once a minute."
    )
    created_at = Moment()

    def get_previous_valid_until(self, broker: Broker) -> datetime | None:
        """Return the end of the previous token."""
        return overlaps.shown(broker.previous_token_until) if broker.has_overlap() else None


class TextsField(serializers.ListField):
    """A list of short texts."""

    child = serializers.CharField(max_length=100)

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MOST_ENTRIES, **options)


class ChangedBrokerSerializer(Closed):
    """The values of a broker that can be changed."""

    name = serializers.CharField(max_length=100, required=False)
    dialects = TextsField(required=False, help_text=DIALECTS_HELP)
    networks = TextsField(required=False, help_text=NETWORKS_HELP)
    is_active = serializers.BooleanField(required=False)


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Mosquitto in a private network",
            {"name": "orchard-main", "dialects": ["go-auth"], "networks": ["10.0.0.0/8"]},
            request_only=True,
        )
    ]
)
class NewBrokerSerializer(Closed):
    """The values of a new broker."""

    name = serializers.CharField(max_length=100)
    dialects = TextsField(required=False, default=list, help_text=DIALECTS_HELP)
    networks = TextsField(required=False, default=list, help_text=NETWORKS_HELP)


class MadeTokenSerializer(BrokerSerializer):
    """A broker with its new token, which no other answer shows."""

    token = serializers.CharField(help_text="The token in clear text, only in this answer.")


class Brokers(OfAllSites, ListView):
    """All brokers."""

    model = Broker
    scopes = {"GET": "access:read", "POST": "access:write"}
    tag = "Brokers"
    serializer_class = BrokerSerializer
    order = ("name",)

    def shown(self, rows: list[Any]) -> list[Any]:
        """Return *rows* with their uses, which one query reads."""
        return with_uses(rows)

    @documented(operation_id="list_brokers", summary="List brokers", responses=BrokerSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Return the brokers by name, without their tokens."""
        return self.list()

    @documented(
        operation_id="create_broker",
        summary="Register a broker",
        parameters=[IDEMPOTENCY_KEY],
        request=NewBrokerSerializer,
        responses={201: MadeTokenSerializer},
    )
    @sensitive_variables()
    def post(self, request: Request) -> Response:
        """Register a broker. The answer shows its token, and no later one does."""
        self.require(visibility.ADD, Broker)
        values = self.body(NewBrokerSerializer)

        def make() -> Made:
            try:
                broker, token = broker_tokens.create_broker(
                    values["name"], values["dialects"], values["networks"]
                )
            except broker_tokens.BrokerExists as error:
                raise Problem("taken", str(error)) from error
            return made(201, broker, token)

        return repeatable.once(request, make)


class OfBroker(OfAllSites):
    """A view of one broker."""

    model = Broker
    tag = "Brokers"

    def answer(self, broker: Broker) -> Response:
        """Return *broker* with its tag."""
        with_uses([broker])
        return tagged(BrokerSerializer(broker, context=self.context()).data, editable(broker))


class OneBroker(OfBroker):
    """One broker."""

    scopes = {"GET": "access:read", "PATCH": "access:write", "DELETE": "access:write"}
    query = SelectedOne

    @documented(has_etag=True, operation_id="get_broker", summary="Read a broker", responses=BrokerSerializer)
    def get(self, request: Request, number: int) -> Response:
        """Return the broker, without its token."""
        return self.answer(self.found(pk=number))

    @documented(
        has_etag=True,
        operation_id="change_broker",
        summary="Change a broker",
        parameters=[IF_MATCH],
        request=ChangedBrokerSerializer,
        responses=BrokerSerializer,
    )
    def patch(self, request: Request, number: int) -> Response:
        """Change the given values; the others stay. `is_active: false` refuses its questions, and keeps its token."""
        values = self.body(ChangedBrokerSerializer, partial=True)
        with transaction.atomic():
            broker = self.found(visibility.CHANGE, pk=number)
            etags.check(request, editable(broker))
            try:
                return self.answer(broker_tokens.change_broker(broker, **values))
            except broker_tokens.BrokerExists as error:
                raise Problem("taken", str(error)) from error

    @documented(
        operation_id="delete_broker", summary="Delete a broker", parameters=[IF_MATCH], responses={204: None}
    )
    def delete(self, request: Request, number: int) -> Response:
        """Delete the broker; each of its questions is refused from now on."""
        with transaction.atomic():
            broker = self.found(visibility.DELETE, pk=number)
            etags.check(request, editable(broker))
            broker_tokens.delete_broker(broker)
        return Response(status=204)


class BrokerRotation(OfBroker):
    """A new token of a broker."""

    scopes = {"POST": "access:write"}

    @documented(
        operation_id="rotate_broker",
        summary="Rotate the token of a broker",
        parameters=[IDEMPOTENCY_KEY],
        request=OverlapSerializer,
        responses={200: MadeTokenSerializer},
    )
    @sensitive_variables()
    def post(self, request: Request, number: int) -> Response:
        """Give the broker a new token, which this answer shows alone. `overlap` keeps the old one for a time.

        A broker that was revoked comes back in this way.
        """
        values = self.body(OverlapSerializer)

        def make() -> Made:
            broker = self.found(visibility.CHANGE, pk=number)
            return made(200, broker, broker_tokens.rotate_token(broker, valid_until=values["overlap"]))

        return repeatable.once(request, make)


class BrokerRevocation(OfBroker):
    """The end of the tokens of a broker."""

    scopes = {"POST": "access:write"}

    @documented(
        has_etag=True,
        operation_id="revoke_broker",
        summary="Revoke the tokens of a broker",
        request=None,
        responses=BrokerSerializer,
    )
    def post(self, request: Request, number: int) -> Response:
        """End the tokens of the broker at once: none of its clients can log in. To come back, rotate its token."""
        with transaction.atomic():
            broker = self.found(visibility.CHANGE, pk=number)
            broker_tokens.revoke_tokens(broker)
            return self.answer(broker)


@sensitive_variables()
def made(status: int, broker: Broker, token: str) -> Made:
    """Return the one answer that shows *token*."""
    (broker,) = with_uses([broker])
    shown = {**BrokerSerializer(broker).data, "token": token}
    return Made(status, shown, address("api_broker", number=broker.pk), holds_secret=True)


def with_uses(brokers: list[Any]) -> list[Any]:
    """Return *brokers*, each with the time and the number of its questions as `asked_at` and `asked`."""
    rows = BrokerUse.objects.filter(broker_id__in=[broker.pk for broker in brokers]).order_by()
    sums = rows.values("broker_id").annotate(asked_at=Max("last_at"), asked=Sum("count"))
    uses = {pk: (at, count) for pk, at, count in sums.values_list("broker_id", "asked_at", "asked")}
    for broker in brokers:
        broker.asked_at, broker.asked = uses.get(broker.pk, (None, 0))
    return brokers


def editable(broker: Broker) -> dict[str, Any]:
    """Return the values of *broker* that people change, for its tag."""
    return {name: getattr(broker, name) for name in broker_tokens.FIELDS}
