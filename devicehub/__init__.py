"""The public names of devicehub. Models are in `devicehub.models`, signals in `devicehub.signals`."""

from devicehub.kinds.declare import Command, DeviceType, Reading, StateField, reading_types

__all__ = ["Command", "DeviceType", "Reading", "StateField", "reading_types"]
