"""An app that makes an ingest worker suffer in the way that NUISANCE says; for the fault suite."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from django.apps import AppConfig

from devicehub import signals
from devicehub.mqtt import Delivery, Listener
from fleet.devices import WeatherStation

FOR_EVER = 3600  # seconds


class Nuisance(AppConfig):
    name = "rig.nuisance"

    def ready(self) -> None:
        HARMS[os.environ.get("NUISANCE", "none")]()


def listen_badly() -> None:
    """A hook and a receiver that both raise, each time."""
    WeatherStation.on_data = _raise  # type: ignore[method-assign]
    signals.device_data_received.connect(_raise, weak=False)


def listen_for_ever() -> None:
    """A receiver that never returns."""
    signals.device_data_received.connect(_block, weak=False)


def acknowledge_hastily() -> None:
    """What nobody must do: acknowledge what is not stored yet."""
    take = Listener.take

    def hasty(self: Listener, *arguments: Any, **options: Any) -> list[Delivery]:
        taken = take(self, *arguments, **options)
        self.acknowledge(taken)
        time.sleep(0.05)  # until the network thread has sent it
        return taken

    Listener.take = hasty  # type: ignore[method-assign]


def _raise(*_: Any, **__: Any) -> None:
    raise RuntimeError("a hook that fails")


def _block(**_: Any) -> None:
    threading.Event().wait(FOR_EVER)


HARMS = {
    "none": lambda: None,
    "raise": listen_badly,
    "block": listen_for_ever,
    "hasty": acknowledge_hastily,
}
