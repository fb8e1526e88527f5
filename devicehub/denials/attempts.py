"""The denials that a person may see; pages and API list the same."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import visibility


def visible(user: Any) -> QuerySet[Denial]:
    """Return the denials of attempts that *user* may see. Raise PermissionDenied without the permission.

    Brokers ask "superuser?" for every client, so those denials are left out.
    """
    if not visibility.may(user, visibility.VIEW, Denial):
        raise PermissionDenied("You may not see denials.")
    return visibility.rows(Denial.objects.exclude(reason=Reason.NOT_SUPERUSER), user, "principal")
