"""The hooks of endpoints: those of every kind, and on_event()."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from devicehub.kinds.declare import Hooks
from devicehub.kinds.registry import Kind, registry


class EndpointHooks(Hooks):
    """Methods that are called after a message of an endpoint is stored. Each does nothing by default.

    A project writes a subclass, and names it in the ready method of its app: `hooks.use(KIND, MyHooks)`.
    """

    def on_event(self, endpoint: Any, event: Any, values: Mapping[str, Any]) -> None:
        """Handle an *event* of *endpoint* with its *values* by path, such as `3303/0/5700`."""


def use(kind: Kind, hooks: type[EndpointHooks]) -> None:
    """Have the methods of *hooks* called for the devices of *kind*, in place of those before."""
    registry.use_hooks(kind, hooks)


def with_on_event(kind: Kind) -> type[EndpointHooks] | None:
    """Return the hooks of *kind* if they override on_event(), or None."""
    found = registry.hooks_of(kind)
    has_own = getattr(found, "on_event", EndpointHooks.on_event) is not EndpointHooks.on_event
    return cast(type[EndpointHooks], found) if has_own else None
