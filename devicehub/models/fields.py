"""The model fields of this package, and their validators."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from devicehub.errors import DevicehubError
from devicehub.kinds import identifiers


class InvalidDeviceId(DevicehubError, ValidationError, ValueError):
    """A text that cannot be a device id."""


def validate_device_id(value: str) -> None:
    """Raise InvalidDeviceId if *value* cannot be a device id."""
    if not isinstance(value, str) or not identifiers.is_device_id(value):
        raise InvalidDeviceId(
            "%(value)r cannot be a device id: use 1-128 letters, digits, _ : and -.",
            params={"value": str(value)[:140]},
            code="invalid_device_id",
        )


class DeviceIdField(models.CharField):  # type: ignore[type-arg]
    """A device id. It is validated on every way into the database, bulk writes and update() included."""

    default_validators = [validate_device_id]

    def deconstruct(self) -> Any:
        """Return the field's parts under its documented path, which the migrations of projects name."""
        name, _, args, options = super().deconstruct()
        return name, "devicehub.models.DeviceIdField", args, options

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Return *value* as Django saves it. Raise InvalidDeviceId for a value that is not an id or an expression."""
        if not hasattr(value, "resolve_expression"):
            validate_device_id(value)
        return super().get_db_prep_save(value, connection)
