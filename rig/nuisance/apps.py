"""An app of the fault suite that harms an ingest worker as the environment variable NUISANCE names."""

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
        """Do the harm that NUISANCE names."""
        HARMS[os.environ.get("NUISANCE", "none")]()


def listen_badly() -> None:
    """Install a hook and a receiver that raise at each call."""
    WeatherStation.on_data = _raise  # type: ignore[method-assign]
    signals.device_data_received.connect(_raise, weak=False)


def listen_for_ever() -> None:
    """Install a receiver that never returns."""
    signals.device_data_received.connect(_block, weak=False)


def acknowledge_hastily() -> None:
    """Acknowledge messages before they are stored, which a worker must never do."""
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
