"""The subjects of grants that name device types, devices and groups."""

from __future__ import annotations

from devicehub.kinds.registry import UnknownKey, registry
from devicehub.models import DeviceGroup


def subject_problem(subject: str) -> str | None:
    """Return a sentence that says why *subject* names nothing, an empty text if it names something.

    None is for a type or a key that only another directory may know.
    """
    form, _, name = subject.partition(":")
    if form == "group":
        return "" if DeviceGroup.objects.filter(slug=name).exists() else f"There is no group {name}."
    if form == "type":
        return "" if registry.get(name) is not None else None
    try:
        kind, device_id = registry.resolve(name)
    except UnknownKey:
        return None
    exists = kind.device_model.objects.filter(device_id=device_id).exists()
    return "" if exists else f"There is no {kind.name} {device_id}."
