"""Credentials that were changed past the actions, and so without an entry in the audit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.db import models
from django.db.models import Exists, OuterRef, QuerySet, Value
from django.db.models.functions import Concat

from authsvc import audit
from authsvc.audit import retention
from authsvc.core.access import ACCOUNT
from authsvc.models import Account, AuditEntry
from devicehub.kinds.registry import registry


def unrecorded(most: int) -> list[str]:
    """Return at most *most* keys of devices and accounts whose credentials are newer than their last entry about them.

    Changes from before the audit existed are left out, and those whose entries are so old that pruning deletes them.
    """
    return list(islice(_unrecorded(most), most))


def _unrecorded(most: int) -> Iterator[str]:
    row = retention.stored()
    if row is None:
        return
    after = max(filter(None, (row.since, retention.expired_before(row))))
    for kind in registry:
        yield from _of(kind.device_model._base_manager.all(), kind.slug, "device_id", after)[:most]
    yield from _of(Account.objects.all(), ACCOUNT, "username", after)[:most]


def _of(rows: QuerySet[Any], prefix: str, column: str, after: Any) -> QuerySet[Any]:
    key = Concat(Value(f"{prefix}/"), column, output_field=models.CharField())
    entries = AuditEntry.objects.filter(
        object_key=OuterRef("key_of_row"),
        action__in=audit.OF_CREDENTIALS,
        at__gte=OuterRef("credentials_changed_at"),
    )
    changed = rows.filter(credentials_changed_at__gt=after).annotate(key_of_row=key)
    found: QuerySet[Any] = changed.filter(~Exists(entries)).order_by().values_list("key_of_row", flat=True)
    return found
