"""Notification of hooks and signal receivers after a batch is stored. A failing listener is logged and loses nothing.

Notifications need only the items of the batch, so any thread may make them; one batch after the other keeps the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import structlog

from devicehub import signals
from devicehub.ingest.items import NEWS, DeviceRow, Item, Judged
from devicehub.ingest.presence import Transition
from devicehub.ingest.store import as_model
from devicehub.kinds.registry import registry

log = structlog.get_logger(__name__)

Call = Callable[[], None]  # It notifies one hook, or the receivers of one signal, and raises nothing.


def announce(batch: Sequence[Item]) -> None:
    """Notify listeners of the contents of each message, then of the changes on each device."""
    for call in of_batch(batch):
        call()


def announce_transitions(transitions: Iterable[Transition]) -> None:
    """Notify listeners of the changes on devices."""
    for call in of_transitions(transitions):
        call()


def of_batch(batch: Sequence[Item]) -> Iterator[Call]:
    """Yield the calls of announce()."""
    judged = [item for item in batch if isinstance(item, Judged)]
    for item in judged:
        if item.outcome in NEWS:
            yield from _of_message(item)
    yield from of_transitions(item.transition for item in judged if item.transition is not None)


def of_transitions(transitions: Iterable[Transition]) -> Iterator[Call]:
    """Yield the calls of announce_transitions(): connections before statuses."""
    for change in transitions:
        sender, device = change.kind.sender, change.device
        hooks = registry.hooks_of(change.kind)()
        if change.connected and not change.was_connected:
            yield partial(_call, hooks.on_connect, device)
            yield partial(signals.send, signals.device_connected, sender, device=device)
        if change.was_connected and not change.connected:
            yield partial(_call, hooks.on_disconnect, device)
            yield partial(signals.send, signals.device_disconnected, sender, device=device)
        if change.old_status != change.new_status:
            yield partial(_call, hooks.on_status_change, device, change.old_status, change.new_status)
            yield partial(
                signals.send,
                signals.device_status_changed,
                sender,
                device=device,
                old_status=change.old_status,
                new_status=change.new_status,
            )


def _of_message(item: Judged) -> Iterator[Call]:
    if isinstance(item.device, DeviceRow):
        return  # There is no listener.
    kind = item.kind
    hooks = registry.hooks_of(kind)()
    for sample in item.samples:
        yield partial(_call, hooks.on_data, item.device, sample.values)
        yield partial(
            signals.send,
            signals.device_data_received,
            kind.sender,
            device=item.device,
            readings=sample.values,
            message=as_model(item),
        )
    if kind.inbox is not None:
        yield from kind.inbox.calls(item)
    if item.answered:
        yield partial(_call, hooks.on_command_response, item.device, item.answered, item.reply)


def _call(hook: Callable[..., object], *arguments: Any) -> None:
    try:
        hook(*arguments)
    except Exception:
        log.exception("ingest.hook_failed", hook=getattr(hook, "__qualname__", str(hook)))
