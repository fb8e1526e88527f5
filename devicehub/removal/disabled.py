"""Clearing of the retained messages of devices that were disabled by code, the admin or SQL.

The worker compares the devices with a table of the disabled devices that it has noticed.
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

# One run notices at most this many devices of a kind. So it enqueues no more topics than it clears, and the topics of
# a device that is deleted meanwhile do not wait behind those of many disabled devices.
MOST = retained.AT_ONCE // len(MessageType)
AT_ONCE = 100  # devices per transaction


def clear() -> int:
    """Clear retained messages of disabled and deleted devices at the broker; return the number of topics."""
    notice()
    return retained.clear()


def notice(most: int = MOST) -> int:
    """Enqueue the topics of at most *most* newly disabled devices of each kind; return the number of devices.

    A device that is active again is deleted from the table, so that it is noticed again when it is disabled again.
    """
    return sum(_notice(kind, most) for kind in registry)


def _notice(kind: Kind, most: int) -> int:
    disabled = kind.device_model._base_manager.filter(is_active=False)
    noticed = DisabledDevice.objects.filter(kind=kind.slug)
    ended = noticed.filter(~Exists(disabled.filter(pk=OuterRef("device_pk")))).values_list("pk", flat=True)
    for some in batched(list(ended), AT_ONCE):  # By primary key, so that an empty list writes nothing.
        DisabledDevice.objects.filter(pk__in=some).delete()
    # If a message was stored since, the device was enabled and disabled again between two runs.
    heard = Coalesce(OuterRef("last_message_at"), F("noticed_at"))
    is_noticed = Exists(noticed.filter(device_pk=OuterRef("pk"), noticed_at__gte=heard))
    # The device that was disabled last comes first.
    new = disabled.filter(~is_noticed).order_by("-updated_at", "-pk")
    found = new.values_list("pk", "device_id", "last_message_at")[:most]
    count = 0
    # All workers write the rows in the same order, so that no two wait for each other.
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
