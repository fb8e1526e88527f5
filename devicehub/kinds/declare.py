"""Declarations of the readings, states and commands of a device type. Free of Django models."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar

from devicehub.errors import DevicehubError
from devicehub.kinds import resources


class reading_types(StrEnum):
    """The types of a reading. An integer has 64 bits, a string 255 characters, binary is base64 in JSON."""

    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"
    JSON = "json"
    BINARY = "binary"


class state_types(StrEnum):
    """The types of a state field."""

    STRING = "string"
    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    JSON = "json"
    DATETIME = "datetime"


NUMBERS = frozenset({"float", "integer"})


class Reading:
    """One value that a device measures. It becomes a nullable column of the type's reading model.

    *unit* is a SenML unit (RFC 8428, 12.1), *range* a pair of inclusive bounds of which one may be None. *lwm2m* is the
    path of the LwM2M resource that it is, such as "3303/0/5700".
    """

    def __init__(
        self,
        type: str = reading_types.FLOAT,  # noqa: A002 - the documented name
        unit: str = "",
        range: tuple[float | None, float | None] | None = None,  # noqa: A002 - the documented name
        required: bool = False,
        verbose_name: str | None = None,
        lwm2m: str | None = None,
    ) -> None:
        self.type = _one_of(reading_types, type)
        self.lwm2m = None if lwm2m is None else resources.check(lwm2m, self.type)
        self.unit = unit
        self.range = _bounds(range, self.type)
        self.required = required
        self.verbose_name = verbose_name
        self.name = ""

    def __repr__(self) -> str:
        return f"Reading(type={self.type.value!r}, unit={self.unit!r})"


class StateField:
    """One lasting property of a device, reported on its status topic. It becomes a column of its model."""

    def __init__(
        self,
        type: str = state_types.STRING,  # noqa: A002 - the documented name
        default: Any = None,
        choices: Sequence[Any] | None = None,
        verbose_name: str | None = None,
    ) -> None:
        self.type = _one_of(state_types, type)
        self.default = default
        self.choices = list(choices) if choices is not None else None
        self.verbose_name = verbose_name
        self.name = ""
        if self.choices is not None and default is not None and default not in self.values:
            raise ValueError(f"The default {default!r} is not one of the choices")
        if isinstance(default, dict | list) and default:
            raise ValueError("A json default must be empty or None: all devices would share a filled one")

    @property
    def values(self) -> list[Any]:
        """The values that *choices* allows; a choice is a value or a pair of value and label."""
        return [c[0] if isinstance(c, list | tuple) else c for c in self.choices or []]

    def __repr__(self) -> str:
        return f"StateField(type={self.type.value!r})"


PAYLOAD_TYPES: Mapping[type, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    dict: (dict,),
    list: (list, tuple),
}


class InvalidCommand(DevicehubError, ValueError):
    """A command cannot be sent as requested; *field* is the value at fault, such as `name` or `payload.level`."""

    def __init__(self, text: str, field: str = "payload") -> None:
        super().__init__(text)
        self.field = field


class WrongParameterType(InvalidCommand, TypeError):
    """A parameter of a command has another type than the one declared."""


class Command:
    """One command that a device understands. *payload* maps each required parameter to a Python type."""

    def __init__(
        self, payload: Mapping[str, type] | None = None, description: str = "", qos: int = 1
    ) -> None:
        self.payload = dict(payload or {})
        for name, kind in self.payload.items():
            if kind not in PAYLOAD_TYPES:
                allowed = ", ".join(t.__name__ for t in PAYLOAD_TYPES)
                raise TypeError(f"The parameter {name} has the type {kind!r}; use one of {allowed}")
        if qos not in (0, 1, 2):
            raise ValueError(f"QoS must be 0, 1 or 2, not {qos!r}")
        self.description = description
        self.qos = qos
        self.name = ""

    def validate_payload(self, data: Mapping[str, Any] | None) -> bool:
        """Return True if *data* fits. Raise ValueError for missing or unknown parameters, TypeError for wrong types."""
        given = {} if data is None else data
        if not isinstance(given, Mapping):
            raise WrongParameterType(f"A payload must be a mapping, not {type(given).__name__}")
        for name in self.payload:
            if name not in given:
                raise InvalidCommand(f"The parameter {name} is missing", f"payload.{name}")
        for name in given:
            if name not in self.payload:
                raise InvalidCommand(f"There is no parameter {name}", f"payload.{name}")
        for name, kind in self.payload.items():
            value = given[name]
            if not isinstance(value, PAYLOAD_TYPES[kind]) or (isinstance(value, bool) and kind is not bool):
                text = f"{name} must be {kind.__name__}, not {type(value).__name__}"
                raise WrongParameterType(text, f"payload.{name}")
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidCommand(f"{name} must be finite", f"payload.{name}")
        return True

    def __repr__(self) -> str:
        return f"Command(payload={self.payload!r})"


DEFAULT_TEMPLATE = "{prefix}/{type_name}/{device_id}/{message_type}"
META_DEFAULTS: Mapping[str, Any] = {
    "protocol": "mqtt",
    "broker": "default",
    "heartbeat_interval": 300,
    "topic_template": DEFAULT_TEMPLATE,
    "client_id": "bound",
    "keep_readings": None,
    "keep_messages": None,
    "keep_hours": None,
    "keep_days": None,
}


class Hooks:
    """Methods that are called after a message is stored. Each does nothing by default.

    The hooks of each message are called on an instance of their own.
    """

    def on_data(self, device: Any, readings: dict[str, Any]) -> None:
        """Handle *readings*, by name, that *device* sent."""

    def on_status_change(self, device: Any, old_status: str, new_status: str) -> None:
        """Handle a change of the status of *device*."""

    def on_connect(self, device: Any) -> None:
        """Handle that *device* is connected and was not before."""

    def on_disconnect(self, device: Any) -> None:
        """Handle that *device* was connected and is not any more."""

    def on_command_response(self, device: Any, command: str, response: dict[str, Any]) -> None:
        """Handle the answer of *device* to *command*; *response* is its reply: id, ok, and result or error."""


class DeviceType(Hooks):
    """Base of all declarations. A subclass names its readings, commands and state fields as attributes.

    `class Meta` may set protocol, broker, heartbeat_interval (seconds), topic_template and client_id (`bound`
    or `any`), and the retention periods keep_readings, keep_messages, keep_hours and keep_days, each a timedelta,
    a text such as "30d", or None for ever. The declarations of a base are inherited; an attribute of another kind
    under the same name removes one.
    """

    _own: ClassVar[dict[str, Reading | Command | StateField | None]] = {}
    _readings: ClassVar[dict[str, Reading]] = {}
    _commands: ClassVar[dict[str, Command]] = {}
    _state_fields: ClassVar[dict[str, StateField]] = {}

    class Meta:
        pass

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if not name.startswith("_")}
        # None under a name removes the declaration of a base, for this class and its subclasses.
        cls._own = {n: v if isinstance(v, Reading | Command | StateField) else None for n, v in own.items()}
        declared: dict[str, Reading | Command | StateField] = {}
        for base in reversed(cls.__mro__):
            for name, value in base.__dict__.get("_own", {}).items():
                declared.pop(name, None)
                if value is not None:
                    value.name = name
                    declared[name] = value
        cls._readings = {n: v for n, v in declared.items() if isinstance(v, Reading)}
        resources.of(cls._readings)
        cls._commands = {n: v for n, v in declared.items() if isinstance(v, Command)}
        cls._state_fields = {n: v for n, v in declared.items() if isinstance(v, StateField)}
        cls.get_meta()

    @classmethod
    def get_slug(cls) -> str:
        """Return the name of this type in topics and keys: `weatherstation` for `WeatherStation`."""
        return cls.__name__.lower()

    @classmethod
    def get_meta(cls) -> dict[str, Any]:
        """Return the options of `class Meta`, with those of the bases and the defaults.

        Raise TypeError for an unknown option, ValueError for a client_id that is neither `bound` nor `any`.
        """
        options = dict(META_DEFAULTS)
        metas = [base.__dict__["Meta"] for base in reversed(cls.__mro__) if "Meta" in base.__dict__]
        for meta in metas:
            for part in reversed(meta.__mro__):
                options |= {name: v for name, v in vars(part).items() if not name.startswith("_")}
        for name in options.keys() - META_DEFAULTS.keys():
            raise TypeError(
                f"{cls.__name__}.Meta has no option {name}; use one of {', '.join(META_DEFAULTS)}"
            )
        if options["client_id"] not in ("bound", "any"):
            raise ValueError(
                f"{cls.__name__}.Meta.client_id must be bound or any, not {options['client_id']!r}"
            )
        return options

    @classmethod
    def create_models(cls, module: str | None = None) -> tuple[type[Any], type[Any], type[Any]]:
        """Return the device, reading and message model of this type, made as if written in the calling module.

        Call it once, in an app's `models.py`, and name all three. *module* overrides the caller's name.
        """
        from devicehub.models.generate import create_models

        return create_models(cls, module or sys._getframe(1).f_globals["__name__"])


def _one_of(kinds: type[StrEnum], name: str) -> Any:
    try:
        return kinds(name)
    except ValueError as error:
        raise ValueError(f"There is no type {name!r}; use one of {', '.join(kinds)}") from error


def _bounds(
    bounds: tuple[float | None, float | None] | None, kind: str
) -> tuple[float | None, float | None] | None:
    if bounds is None:
        return None
    if kind not in NUMBERS:
        raise ValueError(f"A reading of type {kind} has no range")
    if len(bounds) != 2:
        raise ValueError(f"A range must be a pair, not {bounds!r}")
    low, high = bounds
    if low is not None and high is not None and low > high:
        raise ValueError(f"The range {bounds!r} is empty")
    return (low, high)
