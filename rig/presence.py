"""Status messages of a weather station, the notifications of receivers, and a worker that finds silent devices."""

import json
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from devicehub import signals
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message
from devicehub.worker import silence
from devicehub.worker.silence import SilenceWatch
from fleet.models import WeatherStationDevice
from rig.messages import NOW

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
YEARS = timedelta(days=3653)
WINDOW = timedelta(seconds=750)  # two and a half heartbeat intervals of a weather station


def make(device_id="STATION-001", **fields):
    """Create a weather station."""
    return WeatherStationDevice.objects.create(device_id=device_id, **fields)


@pytest.fixture
def station(db):
    """Create our station."""
    return make()


def said(payload, about="status", *, at=NOW, device_id="STATION-001", **options):
    """Return a message of a station, received at *at*."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Message(f"things/weatherstation/{device_id}/{about}", body, at, **options)


def send(payload, about="status", **options):
    """Ingest a message of a station, and return its outcome."""
    [outcome] = pipeline([said(payload, about, **options)])
    return outcome


@pytest.fixture
def notifications():
    """Collect the notifications of the receivers of presence signals, as (signal, device id, ...)."""
    heard, receivers = [], []
    for name in ("connected", "disconnected", "status_changed"):

        def receiver(sender, signal, device, name=name, **more):
            assert sender is registry.of(device).device_type
            heard.append((name, device.device_id, *more.values()))

        signal = getattr(signals, f"device_{name}")
        signal.connect(receiver)
        receivers.append((signal, receiver))
    yield heard
    for signal, receiver in receivers:
        signal.disconnect(receiver)


# --- Four facts

READING, ONLINE, OFFLINE = {"temperature": 1}, {"status": "online"}, {"status": "offline"}


# --- Silent devices


class Clock:
    """A worker that has listened for *listened*, and its watch, which is due whenever it runs.

    It rested for *rest* seconds before, and the last packet of the broker came *quiet* seconds ago, then and now.
    """

    def __init__(self, listened=2 * WINDOW, **options):
        self.since = time.monotonic() - listened.total_seconds()
        self.quiet = 0
        self.watch = SilenceWatch(
            lambda: self.since, heard_until=lambda: time.monotonic() - self.quiet, **options
        )

    def run(self, *, rest=silence.EVERY):
        """Run the watch once, and return its result."""
        self.watch._due.clear()
        self.watch._hearing._rested_since = time.monotonic() - rest
        self.watch._hearing._until = time.monotonic() - self.quiet
        return self.watch.run()


@pytest.fixture
def worker(monkeypatch):
    """Return a worker on a machine that booted long ago."""
    # A machine that just booted has a clock near 0.
    monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 1e6)
    return Clock()


def silent(device_id="STATION-001", *, for_=WINDOW + SECOND, **fields):
    """Create a connected device whose last message is *for_* old."""
    there = {"connected": True, "status": "online", "last_seen": timezone.now() - for_}
    return make(device_id, **{**there, **fields})
