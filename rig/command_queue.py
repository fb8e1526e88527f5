"""Queued commands, a device at a real broker, and programs that send a command and are killed."""

import json
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from io import StringIO

import paho.mqtt.client as paho
from django.core.management import call_command
from django.core.management.base import OutputWrapper
from django.utils import timezone as clock
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import CommandState, DeviceCommand
from rig import servers
from rig.hub import ROOT, environment

QUEUED, SENT, ACKNOWLEDGED, ANSWERED, FAILED, EXPIRED, CANCELLED = CommandState
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@contextmanager
def running_mosquitto(folder, needs_real, more=""):
    """Run Mosquitto and yield its port; skip the test, or fail it, where Mosquitto is not installed."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(folder, more))
        except servers.MissingServer as missing:
            needs_real(missing)


class Device:
    """A device that is connected to the broker; *received* holds the messages of paho."""

    def __init__(self, port, who, session=""):
        self.received = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, session, protocol=paho.MQTTv5)
        self._subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(who.topic("cmd"), 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, message: self.received.append(message)
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 60 if session else 0
        self._client.connect("127.0.0.1", port, clean_start=not session, properties=kept)
        self._client.loop_start()
        assert self._subscribed.wait(5)

    def ids(self):
        """Return the command ids of all received messages."""
        return [json.loads(message.payload)["id"] for message in self.received]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


def the_command():
    """Return the only command in the table."""
    return DeviceCommand.objects.get()


def queue(who, name="reboot", **fields):
    """Return a new queued command for *who*."""
    return DeviceCommand.objects.create(
        device_key=f"weatherstation/{who.device.device_id}", name=name, **fields
    )


def make_due():
    """Make all commands with a due time due now, and release their leases."""
    DeviceCommand.objects.exclude(due_at=None).update(due_at=clock.now(), leased_until=None)


def reply(who, document, *, correlation_id="", at=None):
    """Ingest *document* as a reply of *who*, received at *at* (default: now). Return its outcome."""
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    message = Message(who.topic("reply"), payload, at or clock.now(), correlation_id=correlation_id)
    return pipeline([message])[0]


# --- Killed


def killed(program, *arguments):
    """Run *program* after Django is set up, in a process of its own that must end by SIGKILL."""
    prelude = (
        "import os, signal, django; django.setup()\ndef die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = run_python(prelude + program, *arguments)
    assert done.returncode == -signal.SIGKILL, done.stderr


def run_python(program, *arguments, **variables):
    """Run *program* on the test database, with *variables* in its environment."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(**variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )


SEND = """
from devicehub.commands import sender
from fleet.models import WeatherStationDevice
{patch}
WeatherStationDevice.objects.get(device_id="STATION-001").send_command("reboot")
"""


def run_command(*arguments):
    """Run a management command. Return its exit code, output and error output."""
    out, err = StringIO(), OutputWrapper(StringIO())
    code = 0
    try:
        call_command(*arguments, stdout=out, stderr=err)
    except SystemExit as ended:
        code = ended.code
    return code, out.getvalue(), err._out.getvalue()
