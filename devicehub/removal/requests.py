"""Requests to remove devices: a device is disabled at once, and a worker deletes it with its rows in small portions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from authsvc import audit
from devicehub.db.batches import Pace, Stopped
from devicehub.db.portions import batched
from devicehub.kinds.registry import UnknownKey, registry
from devicehub.models import BaseDevice, RemovalRequest
from devicehub.removal import deletion
from devicehub.removal.deletion import EnabledAgain

log = structlog.get_logger(__name__)

FEW = 10_000  # rows; a web request deletes a device with at most this many itself
FEW_DEVICES = 50  # A request deletes at most this many: each takes many statements, and other writers wait.
AT_ONCE = 500  # devices per statement

# Requests that failed, with the name of the error: workers retry them every few seconds, and log each once.
_refused: set[tuple[int, str]] = set()


@dataclass
class _WhileDisabled(Pace):
    """A pace that raises EnabledAgain before the next portion if the device is active."""

    device: BaseDevice | None = None

    def check(self) -> None:
        super().check()
        if self.device is not None and deletion.is_active(self.device):
            raise EnabledAgain


def count_rows(device: BaseDevice) -> dict[str, int]:
    """Return the numbers of readings, messages and other rows of a device by name.

    A number above FEW means only "more than FEW".
    """
    kind, found = registry.of(device), dict.fromkeys(("readings", "messages"), 0)
    if kind is None:
        return {}
    for name, rows in deletion.tables_of(kind, device):
        found[name] = found.get(name, 0) + rows.order_by()[: FEW + 1].count()
    return found


def have_few_rows(devices: Sequence[BaseDevice]) -> bool:
    """Return whether *devices* are few enough for deletion in a web request, and together have few enough rows."""
    if len(devices) > FEW_DEVICES:
        return False
    left = FEW
    for device in devices:
        left -= 1 + sum(count_rows(device).values())
        if left < 0:
            return False
    return True


def delete_or_request(devices: Sequence[BaseDevice]) -> bool:
    """Delete *devices*, all of one model, if they have few rows; otherwise disable them now and request their removal.

    Return whether they were deleted. Raise ProtectedError or RestrictedError, and then change nothing.
    """
    if not have_few_rows(devices):
        request_all(devices)
        return False
    with transaction.atomic():
        deletion.check_deletable(devices)
        for device in devices:
            device.delete()
    return True


def request(device: BaseDevice) -> None:
    """Disable *device* and request its removal. Raise ProtectedError or RestrictedError, and then change nothing.

    From now on none of its messages is stored. Enabling it before it is deleted keeps it, with its remaining rows.
    """
    request_all([device])


def request_all(devices: Iterable[BaseDevice]) -> None:
    """Disable *devices*, all of one model, and request their removal; all or none of them, as in request()."""
    with transaction.atomic():
        for some in batched(devices, AT_ONCE):
            _request(some)


def _request(devices: list[BaseDevice]) -> None:
    model, now = type(devices[0]), timezone.now()
    kind = registry.of(model)
    if kind is None:
        raise ValueError(f"{model.__name__} is not a registered kind of device")
    deletion.check_deletable(devices)
    rows = model._base_manager.filter(pk__in=[device.pk for device in devices])
    rows.filter(is_active=True).update(is_active=False, updated_at=now)
    # The ids are read from the database, since an instance may be outdated.
    keys = [kind.key(device_id) for device_id in rows.order_by("pk").values_list("device_id", flat=True)]
    RemovalRequest.objects.bulk_create(
        [RemovalRequest(device_key=key, requested_at=now) for key in keys],
        update_conflicts=True,
        update_fields=["requested_at"],
        unique_fields=["device_key"],
    )
    audit.record_many("removal_requested", map(audit.Change, keys))
    for device in devices:
        device.is_active = False


def work_off(pace: Pace | None = None) -> int:
    """Delete the devices whose removal was requested; return how many. Raise batches.Stopped.

    A device that cannot be deleted stays disabled, and its request is retried in the next call.
    """
    pace, count = pace or Pace(), 0
    for waiting in RemovalRequest.objects.all():
        try:
            count += remove(waiting, pace)
        except (Stopped, OperationalError, InterfaceError):  # The other requests would fail too.
            raise
        except EnabledAgain:
            log.warning("removal.enabled_again", device=waiting.device_key)
        except Exception as error:  # Models and receivers of a project may raise anything.
            refusal = waiting.pk, type(error).__name__
            if refusal not in _refused:
                _refused.add(refusal)
                log.exception("removal.refused", device=waiting.device_key)
            continue
        # A request that was repeated meanwhile stays.
        RemovalRequest.objects.filter(pk=waiting.pk, requested_at=waiting.requested_at).delete()
    return count


def remove(waiting: RemovalRequest, pace: Pace) -> int:
    """Delete the device of a request; return 1 if it was deleted, 0 if there was none. Raise EnabledAgain."""
    try:
        kind, device_id = registry.resolve(waiting.device_key)
    except UnknownKey:
        return 0
    device = kind.device_model.objects.filter(device_id=device_id).first()
    if device is None or not RemovalRequest.objects.filter(pk=waiting.pk).exists():
        return 0  # The device is gone, or another one was created with its id after the requests were read.
    if device.is_active:
        raise EnabledAgain
    deletion.check_deletable([device])
    deletion.drain_rows(kind, device, _WhileDisabled(pace.rows, pace.stop, pace.report, device=device))
    return deletion.delete_row(kind, device, only_disabled=True).get(device._meta.label, 0)
