"""The base of views of objects that belong to no site: grants, accounts and brokers decide for the devices of all."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import visibility
from devicehub.api import etags
from devicehub.api.base import ApiView


class OfAllSites(ApiView):
    """A view of *model*. Callers who are limited to sites may not use it, as the admin hides its pages from them."""

    model: ClassVar[type[Model]]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the request before its method is called. Raise Problem, NotAuthenticated."""
        super().initial(request, *args, **kwargs)
        self.require(visibility.VIEW, self.model)
        self.require_unlimited()

    def get_queryset(self) -> QuerySet[Any]:
        """Return no rows of the model, for the schema."""
        return self.rows().none()

    def rows(self) -> QuerySet[Any]:
        """Return all rows of the model."""
        found: QuerySet[Any] = self.model._default_manager.all()
        return found

    def found(self, action: str = visibility.VIEW, **named: Any) -> Any:
        """Return the row *named*, locked in a transaction. Raise Http404, Problem if *action* is not allowed."""
        rows = self.rows()
        if transaction.get_connection().in_atomic_block:
            rows = rows.select_for_update(of=("self",))
        row = rows.filter(**named).first()
        if row is None:
            raise Http404
        if action != visibility.VIEW:
            self.require(action, self.model)
        return row


def tagged(content: Any, editable: Any) -> Response:
    """Return *content* with the tag of its *editable* values, which a change can send as If-Match."""
    return Response(content, headers={"ETag": etags.of(editable)})
