"""Three concrete models made from a declaration, as if they were written in the app that called for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from devicehub.kinds.declare import DeviceType, Reading, StateField
from devicehub.kinds.registry import Kind, describe, registry
from devicehub.models.devices import BaseDevice
from devicehub.models.telemetry import BaseMessage, BaseReading

FIELDS: dict[str, Callable[..., models.Field[Any, Any]]] = {
    "float": models.FloatField,
    "integer": models.BigIntegerField,
    "boolean": models.BooleanField,
    "string": models.CharField,
    "json": models.JSONField,
    "binary": models.BinaryField,
    "datetime": models.DateTimeField,
}
# Words of the payload forms, and Django's name of the device's column: no reading can have one of these names.
PAYLOAD_WORDS = frozenset({"timestamp", "readings", "device_id"})


def create_models(
    device_type: type[DeviceType], module: str
) -> tuple[type[BaseDevice], type[BaseReading], type[BaseMessage]]:
    """Return the three models of *device_type*, registered as a kind. Raise DuplicateKind, ImproperlyConfigured."""
    # Checked before the models exist, because Django cannot unregister a model.
    registry.refuse_taken(device_type.get_slug(), describe(device_type, module))
    _refuse_clashes(device_type)
    device = _device_model(device_type, module)
    reading = _reading_model(device_type, module, device)
    message = _message_model(device_type, module, device)
    meta = device_type.get_meta()
    registry.register(
        Kind(
            slug=device_type.get_slug(),
            device_model=device,
            message_model=message,
            reading_model=reading,
            device_type=device_type,
            readings=device_type._readings,
            commands=device_type._commands,
            state_fields=device_type._state_fields,
            hooks=device_type,
            keep={name: value for name, value in meta.items() if name.startswith("keep_")},
            topic_template=meta["topic_template"],
            client_id=meta["client_id"],
            heartbeat_interval=meta["heartbeat_interval"],
        )
    )
    return device, reading, message


def _device_model(device_type: type[DeviceType], module: str) -> Any:
    name, words = device_type.__name__, _words(device_type.__name__)
    return _model(
        f"{name}Device",
        BaseDevice,
        module,
        {"verbose_name": words, "verbose_name_plural": f"{words}s"},
        {n: _state_column(f) for n, f in device_type._state_fields.items()},
    )


def _reading_model(device_type: type[DeviceType], module: str, device: type[models.Model]) -> Any:
    name, words = device_type.__name__, _words(device_type.__name__)
    return _model(
        f"{name}Reading",
        BaseReading,
        module,
        {
            "verbose_name": f"{words} Reading",
            "verbose_name_plural": f"{words} Readings",
            "indexes": [models.Index(fields=["device", "timestamp"])],
        },
        {"device": _to(device, "readings")}
        | {n: _reading_column(r) for n, r in device_type._readings.items()},
    )


def _message_model(device_type: type[DeviceType], module: str, device: type[models.Model]) -> Any:
    name, words = device_type.__name__, _words(device_type.__name__)
    key = models.UniqueConstraint(fields=["device", "digest"], name="%(app_label)s_%(class)s_key")
    return _model(
        f"{name}Message",
        BaseMessage,
        module,
        {
            "verbose_name": f"{words} Message",
            "verbose_name_plural": f"{words} Messages",
            "constraints": [key],
        },
        {"device": _to(device, "messages")},
    )


def _to(device: type[models.Model], related_name: str) -> models.Field[Any, Any]:
    """Return the foreign key to a device, without an index of its own: another index begins with this column."""
    return models.ForeignKey(device, on_delete=models.CASCADE, related_name=related_name, db_index=False)


def _model(
    name: str, base: type[models.Model], module: str, meta: dict[str, Any], attributes: dict[str, Any]
) -> Any:
    base_meta: Any = base.Meta  # type: ignore[attr-defined]  # It is extended, or the ordering would be lost.
    return type(
        name,
        (base,),
        {
            "__module__": module,
            "__qualname__": name,
            "Meta": type("Meta", (base_meta,), meta),
            **attributes,
        },
    )


def _reading_column(reading: Reading) -> models.Field[Any, Any]:
    options: dict[str, Any] = {"null": True, "blank": True}
    if reading.type == "string":
        options["max_length"] = 255
    if reading.unit:
        options["help_text"] = reading.unit
    if reading.verbose_name:
        options["verbose_name"] = reading.verbose_name
    if reading.range is not None:
        low, high = reading.range
        bounds = [MinValueValidator(low)] if low is not None else []
        options["validators"] = [*bounds, *([MaxValueValidator(high)] if high is not None else [])]
    return FIELDS[reading.type](**options)


def _state_column(state: StateField) -> models.Field[Any, Any]:
    """Return the column of *state*; it may be null if the state has no default, since it is unknown at first."""
    options: dict[str, Any] = {"null": state.default is None, "blank": True}
    if state.default is not None:
        options["default"] = _default(state.default)
    if state.type == "string":
        options["max_length"] = 255
    if state.choices is not None:
        options["choices"] = [tuple(c) if isinstance(c, list | tuple) else (c, str(c)) for c in state.choices]
    if state.verbose_name:
        options["verbose_name"] = state.verbose_name
    return FIELDS[state.type](**options)


def _default(value: Any) -> Any:
    """Return the type of an empty container, so that no two devices share one, and any other *value* as it is.

    Django refuses other mutable defaults.
    """
    if value in ({}, []) and isinstance(value, dict | list):
        return type(value)
    return value


def _refuse_clashes(device_type: type[DeviceType]) -> None:
    for names, base, also in (
        (device_type._readings, BaseReading, PAYLOAD_WORDS),
        (device_type._state_fields, BaseDevice, frozenset({"readings", "messages"})),
    ):
        for name in names:
            taken = {f.name for f in base._meta.local_fields} | also | {"id", "pk", "device", "objects"}
            if name in taken or hasattr(base, name):
                raise ImproperlyConfigured(
                    f"{device_type.__name__}.{name} has the name of an attribute that every "
                    f"{base.__name__.removeprefix('Base').lower()} has; choose another name"
                )


def _words(name: str) -> str:
    """Return the words of a class name, separated by spaces.

    >>> _words("WeatherStation"), _words("HTTPProbe2Go")
    ('Weather Station', 'HTTP Probe2 Go')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
