"""Tags of devices, and the options in which a device differs from its type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from authsvc import audit
from devicehub.kinds.registry import Kind, UnknownKey, registry
from devicehub.models import MAX_TAGS, DeviceOptions, DeviceTag
from devicehub.provisioning import groups

FIELDS = ("expected_heartbeat", "rate_limit")


@transaction.atomic
def set_tags(key: str, tags: Iterable[str]) -> list[str]:
    """Set the tags of the device called *key*, and return them sorted. Raise ValidationError.

    Groups whose filter names a tag follow in the same transaction.
    """
    kind, device_id = _device(key)
    wanted = sorted({tag.strip() for tag in tags} - {""})
    if len(wanted) > MAX_TAGS:
        raise ValidationError(f"A device has at most {MAX_TAGS} tags.")
    rows = [DeviceTag(device_key=key, tag=tag) for tag in wanted]
    for row in rows:
        row.clean_fields()
    before = sorted(DeviceTag.objects.filter(device_key=key).values_list("tag", flat=True))
    if before == wanted:
        return wanted
    DeviceTag.objects.filter(device_key=key).exclude(tag__in=wanted).delete()
    DeviceTag.objects.bulk_create((row for row in rows if row.tag not in before), ignore_conflicts=True)
    audit.record("device_changed", key, before={"tags": before}, after={"tags": wanted})
    groups.follow(kind.device_model, [device_id])
    return wanted


def tags_of(key: str) -> list[str]:
    """Return the tags of the device called *key*, sorted."""
    return list(DeviceTag.objects.filter(device_key=key).order_by("tag").values_list("tag", flat=True))


@transaction.atomic
def set_options(
    key: str, *, expected_heartbeat: float | None = None, rate_limit: str = ""
) -> DeviceOptions | None:
    """Set the options of the device called *key*; None and an empty text leave them to its type. Return its row.

    Raise ValidationError. A worker follows within about ten seconds.
    """
    _device(key)
    before = DeviceOptions.objects.filter(device_key=key).first()
    options = DeviceOptions(device_key=key, expected_heartbeat=expected_heartbeat, rate_limit=rate_limit)
    options.full_clean(validate_unique=False)
    old, new = _values(before), _values(options)
    if old == new:
        return before
    if not any(new.values()):
        DeviceOptions.objects.filter(device_key=key).delete()
    else:
        options.save(force_update=before is not None)
    audit.record("device_changed", key, before=old, after=new)
    return options if any(new.values()) else None


def _values(options: DeviceOptions | None) -> dict[str, Any]:
    return audit.values(options or DeviceOptions(), FIELDS)


def _device(key: str) -> tuple[Kind, str]:
    """Return the kind and the device id of *key*. Raise ValidationError unless it names a device."""
    try:
        kind, device_id = registry.resolve(key)
    except UnknownKey as error:
        raise ValidationError(f"{key} names no device: {error}.") from error
    if not kind.device_model.objects.filter(device_id=device_id).exists():
        raise ValidationError(f"There is no {kind.name} {device_id}.")
    return kind, device_id
