"""The signals that other code may receive. No signal carries a credential.

The sender is the DeviceType; of a kind without one it is the device model.
"""

from __future__ import annotations

from typing import Any

import structlog
from django.dispatch import Signal

log = structlog.get_logger(__name__)

device_data_received = Signal()  # device, readings (a dict by name), message
device_status_changed = Signal()  # device, old_status, new_status
device_connected = Signal()  # device
device_disconnected = Signal()  # device
device_command_sent = Signal()  # device, command (its name), payload
device_provisioned = Signal()  # device


def send(signal: Signal, sender: Any, **arguments: Any) -> None:
    """Send *signal* to every receiver. A receiver that fails is logged and does not keep the others from theirs."""
    for receiver, answer in signal.send_robust(sender=sender, **arguments):
        if isinstance(answer, Exception):
            log.error("signal.receiver_failed", receiver=repr(receiver), exc_info=answer)
