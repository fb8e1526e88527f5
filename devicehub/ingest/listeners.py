"""Whether anybody wants to be told: models of devices and messages are made for listeners only."""

from __future__ import annotations

from devicehub import signals
from devicehub.kinds.declare import DeviceType

HOOKS = ("on_data", "on_status_change", "on_connect", "on_disconnect", "on_command_response")
SIGNALS = (
    signals.device_data_received,
    signals.device_status_changed,
    signals.device_connected,
    signals.device_disconnected,
)


def are_there(device_type: type[DeviceType]) -> bool:
    """Whether *device_type* has a hook of its own, or one of its signals a receiver."""
    return any(getattr(device_type, name) is not getattr(DeviceType, name) for name in HOOKS) or any(
        signal.has_listeners(device_type) for signal in SIGNALS
    )
