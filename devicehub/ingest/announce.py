"""What happened, told to hooks and signals after it is stored. A failing listener is logged and loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from devicehub import commands, signals
from devicehub.ingest.message import Outcome
from devicehub.ingest.store import Item, Judged
from devicehub.models import BaseDevice
from devicehub.topics import MessageType

log = structlog.get_logger(__name__)


class Known(Protocol):
    """What a device was before."""

    status: str
    connected: bool


def announce(batch: Sequence[Item], before: Mapping[tuple[str, str], Known]) -> None:
    """Tell what each message brought, then what changed on each device."""
    changed: dict[tuple[str, str], Judged] = {}
    for item in batch:
        if not isinstance(item, Judged) or item.outcome not in (Outcome.STORED, Outcome.PARTIAL):
            continue
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
        changed[(item.kind.slug, item.device.device_id)] = item
    for key, item in changed.items():
        _announce_changes(item.kind.device_type, item.device, before[key])


def _announce_changes(device_type: Any, device: BaseDevice, was: Known) -> None:
    hooks = device_type()
    if device.connected and not was.connected:
        _tell(hooks.on_connect, device)
        _signal(signals.device_connected, device_type, device=device)
    if was.connected and not device.connected:
        _tell(hooks.on_disconnect, device)
        _signal(signals.device_disconnected, device_type, device=device)
    if device.status != was.status:
        _tell(hooks.on_status_change, device, was.status, device.status)
        _signal(
            signals.device_status_changed,
            device_type,
            device=device,
            old_status=was.status,
            new_status=device.status,
        )


def _deliver_reply(item: Judged) -> None:
    command = commands.answered(item.key, item.document)
    if command is None:
        log.info("ingest.reply_to_no_command", device=item.key)
        return
    item.kind.device_type().on_command_response(item.device, command.name, item.document)


def _tell(hook: Callable[..., object], *arguments: Any) -> None:
    try:
        hook(*arguments)
    except Exception:
        log.exception("ingest.hook_failed", hook=getattr(hook, "__qualname__", str(hook)))


def _signal(signal: Any, sender: Any, **arguments: Any) -> None:
    for receiver, answer in signal.send_robust(sender=sender, **arguments):
        if isinstance(answer, Exception):
            log.error("ingest.receiver_failed", receiver=repr(receiver), exc_info=answer)
