"""What other code may listen to. The sender is the DeviceType; no signal ever carries a credential."""

from __future__ import annotations

from django.dispatch import Signal

device_data_received = Signal()  # device, readings (a dict by name), message
device_status_changed = Signal()  # device, old_status, new_status
device_connected = Signal()  # device
device_disconnected = Signal()  # device
device_command_sent = Signal()  # device, command (its name), payload
device_provisioned = Signal()  # device
