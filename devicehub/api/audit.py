"""`/api/audit/`: who changed which identity or right, when, and from where."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc import audit
from authsvc.models import AuditEntry
from devicehub import visibility
from devicehub.api.base import ApiView, ListView
from devicehub.api.fields import Moment, Selectable, SelectedOne
from devicehub.api.filters import PeriodFilterSet, TextFilter
from devicehub.api.operations import documented


class AuditSerializer(Selectable):
    """One change of an identity or a right."""

    id = serializers.IntegerField()
    at = Moment()
    actor_kind = serializers.ChoiceField(choices=AuditEntry.Kind.values)
    actor = serializers.CharField(help_text="The user, the key of a user, or the part of the system.")
    address = serializers.CharField(help_text="The address of the client, or an empty text.")
    action = serializers.CharField(help_text="The word of the action, such as `password_rotated`.")
    label = serializers.SerializerMethodField(help_text="The action as pages show it.")
    object = serializers.CharField(
        source="object_key", help_text="The key of the object, such as `weatherstation/STATION-001`."
    )
    before = serializers.JSONField(help_text="The values before, by name, or null. Secrets are left out.")
    after = serializers.JSONField(help_text="The values after, by name, or null. Secrets are left out.")
    reason = serializers.CharField(help_text="The reason that the actor gave, or an empty text.")

    def get_label(self, entry: AuditEntry) -> str:
        """Return the action as pages show it."""
        return audit.label(entry.action)


class AuditFilter(PeriodFilterSet):
    """The filters of the audit."""

    moment = "at"

    class Meta:
        model = AuditEntry
        fields: tuple[str, ...] = ()

    actor = TextFilter(help_text="The actor of the entries.")
    action = TextFilter(help_text="The word of the action.")
    object = TextFilter(field_name="object_key", help_text="The key of the object.")


class OfAudit(ApiView):
    """A view of the audit."""

    scopes = {"GET": "access:read"}
    tag = "Access"

    def rows(self) -> QuerySet[Any]:
        """Return the entries that the caller may see. Raise Problem `not-allowed`."""
        self.require(visibility.VIEW, AuditEntry)
        return visibility.rows(AuditEntry.objects.all(), self.request.user, "object_key")


class Audit(OfAudit, ListView):
    """The entries of the audit that the caller may see."""

    serializer_class = AuditSerializer
    filterset_class = AuditFilter
    order = ("-at", "-id")

    @documented(operation_id="list_audit", summary="List the audit", responses=AuditSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Return the changes of identities and rights, the latest first.

        People and keys that are limited to sites see those of their devices.
        """
        return self.list()


class OneEntry(OfAudit):
    """One entry of the audit."""

    query = SelectedOne

    @documented(
        operation_id="get_audit_entry", summary="Read an entry of the audit", responses=AuditSerializer
    )
    def get(self, request: Request, number: int) -> Response:
        """Return the entry."""
        row = self.rows().filter(pk=number).first()
        if row is None:
            raise Http404
        return Response(AuditSerializer(row, context=self.context()).data)
