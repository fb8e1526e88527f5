"""Listeners of a kind: hooks and receivers. Models of devices and messages are made for them only."""

from __future__ import annotations

from devicehub import signals
from devicehub.kinds.declare import Hooks
from devicehub.kinds.registry import Kind, registry

HOOKS = tuple(name for name in vars(Hooks) if name.startswith("on_"))
SIGNALS = (
    signals.device_data_received,
    signals.device_status_changed,
    signals.device_connected,
    signals.device_disconnected,
)


def are_there(kind: Kind) -> bool:
    """Return whether *kind* overrides a hook, one of its signals has a receiver, or its inbox has a listener."""
    hooks = registry.hooks_of(kind)
    return (
        any(getattr(hooks, name) is not getattr(Hooks, name) for name in HOOKS)
        or any(signal.has_listeners(kind.sender) for signal in SIGNALS)
        or (kind.inbox is not None and kind.inbox.listens())
    )
