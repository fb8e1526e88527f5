"""Devices that are disabled, in whatever way: code, the admin or SQL. Their retained messages are cleared.

The worker compares the devices with a table of those that it knows to be disabled.
"""

from __future__ import annotations

from operator import itemgetter

from django.db import transaction
from django.db.models import Exists, F, OuterRef
from django.db.models.functions import Coalesce
from django.utils import timezone

from devicehub.db.portions import batched
from devicehub.kinds.registry import Kind, registry
from devicehub.kinds.topics import MessageType
from devicehub.models import DisabledDevice
from devicehub.removal import retained

# Devices of a kind that one run notices: where many are disabled when a worker first looks, no more topics are written
# down than it clears, so that those of a device that is deleted meanwhile do not wait behind all of them.
MOST = retained.AT_ONCE // len(MessageType)
AT_ONCE = 100  # devices of one transaction


def clear() -> int:
    """Have the broker forget what it retains of devices that were disabled or deleted; return how many topics."""
    notice()
    return retained.clear()


def notice(most: int = MOST) -> int:
    """Write down the topics of at most *most* devices of each kind that were disabled since; return their number.

    A device that is active again is taken off the table, so that it counts anew when it is disabled once more.
    """
    return sum(_notice(kind, most) for kind in registry)


def _notice(kind: Kind, most: int) -> int:
    disabled = kind.device_model._base_manager.filter(is_active=False)
    known = DisabledDevice.objects.filter(kind=kind.slug)
    ended = known.filter(~Exists(disabled.filter(pk=OuterRef("device_pk")))).values_list("pk", flat=True)
    for some in batched(list(ended), AT_ONCE):  # by key: without any, nothing is written
        DisabledDevice.objects.filter(pk__in=some).delete()
    # One that a message was stored of since was enabled, and disabled again, between two runs.
    heard = Coalesce(OuterRef("last_message_at"), F("noticed_at"))
    is_known = Exists(known.filter(device_pk=OuterRef("pk"), noticed_at__gte=heard))
    # The device that was disabled last comes first.
    new = disabled.filter(~is_known).order_by("-updated_at", "-pk")
    found = new.values_list("pk", "device_id", "last_message_at")[:most]
    count = 0
    # They are written in one order, or two workers wait for each other.
    for rows in batched(sorted(found, key=itemgetter(0)), AT_ONCE):
        now = timezone.now()
        with transaction.atomic():
            retained.enqueue(kind, [device_id for _, device_id, _ in rows])
            DisabledDevice.objects.bulk_create(
                [
                    # A clock that was ahead may have written a later time.
                    DisabledDevice(kind=kind.slug, device_pk=pk, noticed_at=max(now, last or now))
                    for pk, _, last in rows
                ],
                update_conflicts=True,
                unique_fields=["kind", "device_pk"],
                update_fields=["noticed_at"],
            )
        count += len(rows)
    return count
