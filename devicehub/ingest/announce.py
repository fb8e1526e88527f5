"""What happened, told to hooks and signals after it is stored. A failing listener is logged and loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from devicehub import signals
from devicehub.ingest import store
from devicehub.ingest.message import Outcome
from devicehub.ingest.store import Item, Judged, Known
from devicehub.models import BaseDevice
from devicehub.topics import MessageType

log = structlog.get_logger(__name__)


def announce(batch: Sequence[Item]) -> None:
    """Tell what each message brought, then what changed on each device."""
    told = _heard(item for item in batch if isinstance(item, Judged) and item.outcome in NEWS)
    before = {_key(item): (item.device.status, item.device.connected) for item in told}
    by_kind: dict[str, list[Judged]] = {}
    for item in told:
        by_kind.setdefault(item.kind.slug, []).append(item)
    for items in by_kind.values():
        changes = store.changes(items)
        for device in {item.device.pk: item.device for item in items}.values():
            if device.pk in changes:
                changes[device.pk].apply(device)
    for item in told:
        _announce_message(item)
    for key, item in {_key(item): item for item in told}.items():
        _announce_changes(item.kind.device_type, item.device, *before[key])


NEWS = frozenset({Outcome.STORED, Outcome.PARTIAL})


def _heard(items: Iterable[Judged]) -> list[Judged]:
    """Those that somebody listens to; of the others, replies have their command answered."""
    told = []
    for item in items:
        if not isinstance(item.device, Known):
            told.append(item)
        elif item.message_type is MessageType.REPLY:
            _tell(_deliver_reply, item)
    return told


def _key(item: Judged) -> tuple[str, int]:
    return item.kind.slug, item.device.pk


def _announce_message(item: Judged) -> None:
    device_type = item.kind.device_type
    for sample in item.samples:
        _tell(device_type().on_data, item.device, sample.values)
        _signal(
            signals.device_data_received,
            device_type,
            device=item.device,
            readings=sample.values,
            message=item.row,
        )
    if item.message_type is MessageType.REPLY:
        _tell(_deliver_reply, item)


def _announce_changes(device_type: Any, device: BaseDevice, old_status: str, was_connected: bool) -> None:
    hooks = device_type()
    if device.connected and not was_connected:
        _tell(hooks.on_connect, device)
        _signal(signals.device_connected, device_type, device=device)
    if was_connected and not device.connected:
        _tell(hooks.on_disconnect, device)
        _signal(signals.device_disconnected, device_type, device=device)
    if device.status != old_status:
        _tell(hooks.on_status_change, device, old_status, device.status)
        _signal(
            signals.device_status_changed,
            device_type,
            device=device,
            old_status=old_status,
            new_status=device.status,
        )


def _deliver_reply(item: Judged) -> None:
    if not item.answered:
        log.info("ingest.reply_to_no_command", device=item.key)
        return
    item.kind.device_type().on_command_response(item.device, item.answered, item.reply)


def _tell(hook: Callable[..., object], *arguments: Any) -> None:
    try:
        hook(*arguments)
    except Exception:
        log.exception("ingest.hook_failed", hook=getattr(hook, "__qualname__", str(hook)))


def _signal(signal: Any, sender: Any, **arguments: Any) -> None:
    for receiver, answer in signal.send_robust(sender=sender, **arguments):
        if isinstance(answer, Exception):
            log.error("ingest.receiver_failed", receiver=repr(receiver), exc_info=answer)
