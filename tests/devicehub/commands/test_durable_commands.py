"""Commands from the queue to their end: with a real broker, without one, and with processes that are killed."""

import json
import re
import signal
import subprocess
import sys
import threading
import uuid
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from io import StringIO

import paho.mqtt.client as paho
import pytest
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper
from django.db import OperationalError, connection, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone as clock
from django.utils.html import escape
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devicehub import commands, mqtt, signals
from devicehub.commands import transitions, wire
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message, Outcome
from devicehub.models import CommandState, DeviceCommand
from devicehub.mqtt import Ack, Connection, Unacknowledged
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice
from rig import servers
from rig.hub import ROOT, environment, eventually

QUEUED, SENT, ACKNOWLEDGED, ANSWERED, FAILED, EXPIRED, CANCELLED = CommandState
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture(autouse=True)
def nobody_is_away():
    yield
    commands.close()


@contextmanager
def running_mosquitto(folder, needs_real, more=""):
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(folder, more))
        except servers.MissingServer as missing:
            needs_real(missing)


@pytest.fixture
def broker(tmp_path, needs_real, settings):
    """The port of a mosquitto that commands go to."""
    with running_mosquitto(tmp_path / "mosquitto", needs_real) as port:
        settings.MQTT_URL = f"mqtt://hub@127.0.0.1:{port}"
        yield port


@pytest.fixture
def no_broker(settings):
    settings.MQTT_URL = f"mqtt://hub:s3cret@127.0.0.1:{servers.free_port()}"


class Device:
    """A device at the broker, with what it received as paho's messages."""

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
        return [json.loads(message.payload)["id"] for message in self.received]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def arrive():
    """Let a device connect and subscribe to its commands."""
    with ExitStack() as stack:

        def one(port, who, session=""):
            device = Device(port, who, session)
            stack.callback(device.close)
            return device

        yield one


class FakeConnection:
    """A broker that says what a test tells it to; an exception is raised, a function called."""

    connected = True
    says = Ack()

    def __init__(self, *_, **__):
        pass

    def publish(self, message, timeout):
        said = type(self).says
        if isinstance(said, Exception):
            raise said
        return said(message) if callable(said) else said

    def close(self):
        pass


@pytest.fixture
def said(monkeypatch):
    """Set what the broker says: `said(Ack(0x10, ...))`."""
    monkeypatch.setattr(mqtt, "Connection", FakeConnection)

    def say(answer):
        monkeypatch.setattr(FakeConnection, "says", answer)

    return say


@pytest.fixture
def told():
    """The commands of which device_command_sent was sent."""
    names = []

    def listen(command, **_):
        names.append(command)

    signals.device_command_sent.connect(listen)
    yield names
    signals.device_command_sent.disconnect(listen)


def the_command():
    return DeviceCommand.objects.get()


def queue(who, name="reboot", **fields):
    """A command in the queue that nobody has looked at."""
    return DeviceCommand.objects.create(
        device_key=f"weatherstation/{who.device.device_id}", name=name, **fields
    )


def make_due():
    DeviceCommand.objects.exclude(due_at=None).update(due_at=clock.now(), leased_until=None)


def reply(who, document, *, correlation_id="", at=None):
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    message = Message(who.topic("reply"), payload, at or clock.now(), correlation_id=correlation_id)
    return pipeline([message])[0]


# --- With a broker


def test_the_brokers_ack_makes_it_acknowledged(broker, station, arrive, told):
    device = arrive(broker, station)

    command_id = station.device.send_command("set_interval", {"interval": 60})

    command = the_command()
    assert (str(command.id), command.state, command.attempts, command.error) == (
        command_id,
        ACKNOWLEDGED,
        1,
        "",
    )
    assert (
        command.queued_at <= command.sent_at <= command.acknowledged_at < command.deadline == command.due_at
    )
    assert eventually(lambda: device.ids() == [command_id])
    assert told == ["set_interval"]
    commands.send_due()
    assert told == ["set_interval"]


def test_mqtt_5_says_whose_answer_it_wants_where_and_until_when(broker, station, arrive):
    device = arrive(broker, station)

    command_id = commands.send(station.device, "reboot", deadline=timedelta(minutes=2))

    assert eventually(lambda: device.received)
    properties = device.received[0].properties
    assert properties.CorrelationData == command_id.encode()
    assert properties.ResponseTopic == station.topic("reply")
    assert 110 <= properties.MessageExpiryInterval <= 120


def test_a_device_that_is_away_gets_its_command_when_it_is_back(broker, station, neighbour, arrive, told):
    """Mosquitto takes the message and says that nobody is subscribed: nobody has it."""
    arrive(broker, neighbour)
    command_id = station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.sent_at, told) == (QUEUED, None, [])
    assert (
        command.error == "nobody is subscribed to things/weatherstation/STATION-001/cmd: the device is away"
    )
    device = arrive(broker, station)
    assert eventually(commands.send_due) == 1

    assert eventually(lambda: device.ids() == [command_id])
    assert the_command().state == ACKNOWLEDGED
    assert (the_command().attempts, the_command().error, told) == (2, "", ["reboot"])


def test_a_status_of_the_device_brings_the_next_attempt_forward(broker, station, neighbour, arrive):
    for who in (station, neighbour):
        who.device.send_command("reboot")
    DeviceCommand.objects.update(due_at=clock.now() + MINUTE)
    arrive(broker, station)

    pipeline([Message(station.topic("status"), b'{"status": "online"}', clock.now())])

    assert commands.send_due() == 1
    key = "weatherstation/STATION-001"
    assert DeviceCommand.objects.get(state=ACKNOWLEDGED).device_key == key


def test_what_waited_for_the_device_is_sent_in_the_order_in_which_it_was_queued(said, station):
    sent = []
    said(lambda message: sent.append(json.loads(message.payload)["payload"]["interval"]) or Ack())
    now, later = clock.now(), clock.now() + MINUTE
    for place in (3, 1, 4, 2, 5):
        at = now + timedelta(milliseconds=place)
        queue(station, "set_interval", payload={"interval": place}, queued_at=at, due_at=later)

    pipeline([Message(station.topic("status"), b'{"status": "online"}', clock.now())])
    commands.send_due()

    assert sent == [1, 2, 3, 4, 5]


def test_the_connection_stays_open_while_there_is_work(broker, station, arrive, monkeypatch):
    opened = []
    monkeypatch.setattr(mqtt, "Connection", lambda *a, **k: opened.append(Connection(*a, **k)) or opened[-1])
    arrive(broker, station)
    for _ in range(3):
        queue(station)

    assert commands.send_due() == 3
    queue(station)
    assert commands.send_due() == 1
    station.device.send_command("reboot")

    assert (len(opened), opened[0].connected) == (1, True)
    monkeypatch.setattr("devicehub.commands.sender.IDLE", 0)
    commands.send_due()
    assert not opened[0].connected


def test_a_broker_that_goes_away_between_two_commands_is_noticed(
    station, arrive, tmp_path, needs_real, settings
):
    with running_mosquitto(tmp_path / "mosquitto", needs_real) as port:
        settings.MQTT_URL = f"mqtt://127.0.0.1:{port}"
        arrive(port, station)
        queue(station)
        assert commands.send_due() == 1
    second = queue(station)

    assert eventually(lambda: not servers.accepts(port))
    assert commands.send_due() == 0

    second.refresh_from_db()
    assert (second.state, second.acknowledged_at) == (QUEUED, None)
    assert second.error


def test_the_broker_drops_what_an_absent_device_would_get_too_late(broker, station, arrive):
    """The device has a session, so the broker keeps the command for it: until the deadline (MQTT 5.0, 3.3.2.3.3)."""
    arrive(broker, station, session="station").close()
    commands.send(station.device, "reboot", deadline=timedelta(seconds=1))
    commands.send(station.device, "set_interval", {"interval": 5})
    assert {command.state for command in DeviceCommand.objects.all()} == {ACKNOWLEDGED}
    dropped = DeviceCommand.objects.get(name="reboot").deadline + timedelta(seconds=1)
    assert eventually(lambda: clock.now() > dropped)

    device = arrive(broker, station, session="station")

    assert eventually(lambda: device.received)
    assert [json.loads(message.payload)["command"] for message in device.received] == ["set_interval"]


def test_a_caller_leaves_no_connection_behind(broker, station, arrive, monkeypatch):
    opened = []
    monkeypatch.setattr(mqtt, "Connection", lambda *a, **k: opened.append(Connection(*a, **k)) or opened[-1])
    arrive(broker, station)

    station.device.send_command("reboot")

    assert [one.connected for one in opened] == [False]


# --- Who it is at the broker


def test_two_pods_have_a_client_id_each(monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: 1)
    ids = []
    for pod in ("abcde", "fghij"):
        monkeypatch.setattr(
            "socket.gethostname", lambda pod=pod: f"devicehub-production-ingest-7d9f8b6c5-{pod}"
        )
        ids.append(wire.client_id("hub"))

    assert ids == [wire.client_id("hub").replace("fghij", "abcde"), wire.client_id("hub")]
    assert re.fullmatch(r"hub-commands-.{27}fghij-1-[0-9a-f]{8}", ids[1])


def test_two_processes_of_one_host_name_and_process_id_have_a_client_id_each():
    show = "import os, django; django.setup(); os.getpid = lambda: 1\n"
    show += "from devicehub.commands import wire; print(wire.client_id('hub'), wire.client_id('hub', '-retained'))"

    one, two = (run_python(show).stdout.split() for _ in range(2))

    assert one[1] == f"{one[0]}-retained"
    assert one[0][:-8] == two[0][:-8]
    assert one[0] != two[0]


def test_a_forked_process_has_a_client_id_of_its_own():
    show = "import os, django; django.setup(); os.getpid = lambda: 1\nfrom devicehub.commands import wire\n"
    show += "child = os.fork()\nif child: os.waitpid(child, 0)\nprint(wire.client_id('hub'), flush=True)"

    ids = run_python(show).stdout.split()

    assert len(ids) == len(set(ids)) == 2


@pytest.mark.parametrize(("username", "length"), [(None, 66), ("hub", 60), ("u" * 60, 100), ("u" * 128, 153)])
def test_a_long_username_leaves_less_of_the_host_name(username, length, monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: 12345)
    monkeypatch.setattr("socket.gethostname", lambda: "höst." * 10)

    client_id = wire.client_id(username)

    assert client_id.isascii()
    assert client_id.startswith(f"{username or 'devicehub'}-commands-")
    assert len(client_id) == length


# --- Without a broker


def test_without_a_broker_it_waits_and_says_why(no_broker, station, told):
    command_id = station.device.send_command("reboot")

    command = the_command()
    assert (str(command.id), command.state, command.attempts, command.sent_at) == (
        command_id,
        QUEUED,
        1,
        None,
    )
    assert command.error.startswith("no connection to 127.0.0.1:")
    assert "s3cret" not in command.error
    assert clock.now() < command.due_at < clock.now() + timedelta(seconds=3)
    assert told == []


def test_what_waited_for_the_broker_is_sent_when_it_is_there(
    no_broker, station, arrive, tmp_path, needs_real, settings, told
):
    ids = [
        station.device.send_command("reboot"),
        station.device.send_command("set_interval", {"interval": 5}),
    ]
    with running_mosquitto(tmp_path / "mosquitto", needs_real) as port:
        device = arrive(port, station)
        settings.MQTT_URL = f"mqtt://127.0.0.1:{port}"
        assert eventually(
            lambda: commands.send_due() and DeviceCommand.objects.filter(state=ACKNOWLEDGED).count() == 2
        )

        assert eventually(lambda: sorted(device.ids()) == sorted(ids))
    assert sorted(told) == ["reboot", "set_interval"]


def test_a_refused_login_is_no_command_sent(station, tmp_path, needs_real, settings, told):
    passwords = tmp_path / "passwords"
    passwords.write_text("hub:$7$101$c2FsdHNhbHRzYWx0$" + "A" * 86 + "==\n")
    with running_mosquitto(tmp_path / "mosquitto", needs_real, f"password_file {passwords}\n") as port:
        settings.MQTT_URL = f"mqtt://hub:s3cret@127.0.0.1:{port}"
        station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.sent_at, told) == (QUEUED, None, [])
    assert "refused the connection: Not authorized" in command.error
    assert "s3cret" not in command.error


def test_a_topic_that_the_account_may_not_publish_to_is_tried_again(
    station, tmp_path, needs_real, settings, told
):
    """Brokers say "not authorized" also while the service that they ask restarts."""
    rules = tmp_path / "rules"
    rules.write_text("topic read #\n")
    with running_mosquitto(tmp_path / "mosquitto", needs_real, f"acl_file {rules}\n") as port:
        settings.MQTT_URL = f"mqtt://127.0.0.1:{port}"
        station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.sent_at, told) == (QUEUED, None, [])
    assert clock.now() < command.due_at < command.deadline
    topic = station.topic("cmd")
    assert command.error == f"the broker refused a message to {topic}: Not authorized (0x87)"


def test_a_broker_that_hangs_up_on_a_large_command_holds_up_no_other(
    no_broker, station, arrive, tmp_path, needs_real, settings
):
    large, other = station.device.send_command("reboot"), station.device.send_command("reboot")
    DeviceCommand.objects.filter(id=large).update(payload={"text": "x" * 20_000})
    with running_mosquitto(tmp_path / "mosquitto", needs_real, "max_packet_size 10000\n") as port:
        device = arrive(port, station)
        settings.MQTT_URL = f"mqtt://127.0.0.1:{port}"

        def others_arrive():
            commands.send_due()
            return device.ids() == [other]

        def large_is_tried():  # perhaps after the other one: both are due at the same time
            commands.send_due()
            return DeviceCommand.objects.get(id=large).state == SENT

        assert eventually(others_arrive, 5)  # less than what an ack is waited for
        assert eventually(large_is_tried, 5)
    assert "the connection was lost" in DeviceCommand.objects.get(id=large).error


def test_while_the_broker_is_away_it_is_not_asked_for_each_command(no_broker, station, monkeypatch):
    asked = []
    real = mqtt.Connection
    monkeypatch.setattr(mqtt, "Connection", lambda *a, **k: asked.append(1) or real(*a, **k))
    for _ in range(5):
        queue(station)

    assert commands.send_due() == 0

    assert len(asked) == 1
    assert {command.error[:13] for command in DeviceCommand.objects.all()} == {"no connection"}
    assert sorted(command.attempts for command in DeviceCommand.objects.all()) == [0, 0, 0, 0, 1]


def test_nothing_to_do_is_one_query(station, django_assert_num_queries):
    queue(station, state=ANSWERED, due_at=None)
    queue(station, due_at=clock.now() + MINUTE)

    commands.send_due()  # once a minute it looks for more

    with django_assert_num_queries(1):
        assert commands.send_due() == 0


# --- The caller's transaction


def test_nothing_is_published_before_the_commit(said, station, told):
    said(Ack())
    with transaction.atomic():
        station.device.send_command("reboot")
        assert (the_command().state, told) == (QUEUED, [])

    assert (the_command().state, told) == (ACKNOWLEDGED, ["reboot"])


def test_a_rolled_back_command_never_was(said, station, told):
    said(Ack())
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        station.device.send_command("reboot")
        raise ZeroDivisionError

    assert (DeviceCommand.objects.count(), told) == (0, [])


def test_a_bug_while_publishing_is_logged_and_the_command_sent_later(said, station):
    """The row is committed: an error would make the caller send it twice."""
    said(lambda message: 1 / 0)
    station.device.send_command("reboot")
    assert the_command().state == QUEUED

    said(Ack())
    make_due()
    assert commands.send_due() == 1


# --- Killed


def killed(program, *arguments):
    """Run *program* after Django is set up, in a process of its own that must end by SIGKILL."""
    prelude = (
        "import os, signal, django; django.setup()\ndef die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = run_python(prelude + program, *arguments)
    assert done.returncode == -signal.SIGKILL, done.stderr


def run_python(program, *arguments, **variables):
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


@pytest.fixture
def url(broker, monkeypatch):
    """For processes of their own."""
    monkeypatch.setenv("MQTT_URL", f"mqtt://hub@127.0.0.1:{broker}")
    monkeypatch.setenv("DEVICEHUB_MQTT_VERSION", "5")


def test_killed_between_commit_and_publish_it_is_sent_once(broker, url, station, arrive, told):
    device = arrive(broker, station)
    killed(SEND.format(patch="sender.send_now = die"))
    assert (the_command().state, the_command().attempts, device.received) == (QUEUED, 0, [])

    assert eventually(commands.send_due) == 1

    assert eventually(lambda: device.ids() == [str(the_command().id)])
    assert (the_command().state, told) == (ACKNOWLEDGED, ["reboot"])


def test_killed_between_publish_and_its_record_it_is_sent_twice_under_one_id(broker, url, station, arrive):
    device = arrive(broker, station)
    killed(SEND.format(patch="sender._conclude = die"))
    command = the_command()
    assert (command.state, command.attempts) == (QUEUED, 1)
    assert commands.send_due() == 0, "its lease is not over"

    DeviceCommand.objects.update(due_at=clock.now(), leased_until=clock.now())
    assert commands.send_due() == 1

    assert eventually(lambda: device.ids() == [str(command.id)] * 2)
    assert the_command().state == ACKNOWLEDGED


REPLY = """
import sys, django; django.setup()
from django.utils import timezone
from devicehub.messages.message import Message
from devicehub.ingest.pipeline import pipeline
pipeline([Message(sys.argv[1], sys.argv[2].encode(), timezone.now())])
"""


@pytest.mark.parametrize(
    ("stage", "state"), [("written", ACKNOWLEDGED), ("committed", ANSWERED), ("told", ANSWERED)]
)
def test_an_acknowledged_reply_has_answered_its_command_whenever_ingest_dies(said, station, stage, state):
    said(Ack())
    command_id = station.device.send_command("reboot")
    document = json.dumps({"id": command_id, "ok": True})

    done = run_python(REPLY, station.topic("reply"), document, DEVICEHUB_FAILPOINT=stage)

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert the_command().state == state
    assert station.device.messages.count() == (state == ANSWERED)


# --- Two at once

DRAIN = """
import sys, time, django; django.setup()
from devicehub import commands
from devicehub.models import DeviceCommand
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + 10
while DeviceCommand.objects.filter(state="queued").exists() and time.monotonic() < end:
    print(commands.send_due(), flush=True)
"""


def test_of_several_senders_one_publishes_each_command(broker, url, station, arrive):
    device = arrive(broker, station)
    ids = sorted(str(queue(station).id) for _ in range(40))
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", DRAIN],
            env=environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for sender in senders:
        assert sender.stdout.readline() == "ready\n"
    for sender in senders:
        sender.stdin.write("go\n")
        sender.stdin.flush()
    counts = [sum(map(int, sender.communicate(timeout=30)[0].split())) for sender in senders]

    assert [sender.returncode for sender in senders] == [0, 0, 0]
    assert sum(counts) == 40
    assert sorted(device.ids()) == ids
    assert {command.attempts for command in DeviceCommand.objects.all()} == {1}


def test_of_two_claims_one_succeeds(station):
    queue(station)
    mine, yours = the_command(), the_command()
    now = clock.now()

    assert transitions.claim(mine, now)
    assert not transitions.claim(yours, now)

    # A lease that is over is taken by another; the first one's failure then says nothing any more.
    late = now + transitions.LEASE
    other = the_command()
    assert transitions.claim(other, late)
    transitions.retry(mine, late, "too late")
    assert (the_command().error, the_command().attempts) == ("", 2)
    # Its ack does, because it is true; and the second ack is no news.
    assert transitions.taken(mine, ACKNOWLEDGED, now, late)
    assert not transitions.taken(other, ACKNOWLEDGED, late, late)


# --- What the broker says


@pytest.mark.parametrize(
    ("code", "words", "state"),
    [
        (0x80, "Unspecified error", QUEUED),
        (0x83, "Implementation specific error", QUEUED),
        (0x87, "Not authorized", QUEUED),
        (0x90, "Topic name invalid", FAILED),
        (0x97, "Quota exceeded", QUEUED),
        (0x99, "Payload format invalid", FAILED),
    ],
)
def test_a_refusal_is_in_words_and_never_sent(said, station, told, code, words, state):
    said(Ack(code, words))

    station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.sent_at, command.acknowledged_at, told) == (state, None, None, [])
    assert f"{words} (0x{code:02x})" in command.error
    assert (command.due_at is None) == (state == FAILED) == (command.ended_at is not None)


def test_a_command_outlives_a_restart_of_the_authorization_service(said, station, told):
    said(Ack(0x87, "Not authorized"))
    station.device.send_command("reboot")

    said(Ack())
    make_due()
    assert commands.send_due() == 1
    assert (the_command().state, the_command().error, told) == (ACKNOWLEDGED, "", ["reboot"])


def test_without_an_ack_it_may_have_arrived_and_is_sent_again(said, station, told):
    said(Unacknowledged("no ack"))
    station.device.send_command("reboot")
    command = the_command()
    assert (command.state, command.acknowledged_at, told) == (SENT, None, [])
    assert command.error == "no ack; may this account publish there, and as much?"
    assert command.sent_at is not None
    assert not commands.cancel(command)

    said(Ack())
    commands.close()
    make_due()
    assert commands.send_due() == 1
    assert (the_command().state, told) == (ACKNOWLEDGED, ["reboot"])


def test_the_answer_to_what_was_not_acknowledged_counts(said, station):
    said(Unacknowledged("no ack"))
    command_id = station.device.send_command("reboot")

    assert reply(station, {"id": command_id, "ok": True}) is Outcome.STORED

    assert the_command().state == ANSWERED
    make_due()
    assert commands.send_due() == 0


def test_a_reply_may_be_quicker_than_the_ack(said, station, told):
    def answered_first(message):
        reply(station, {"id": json.loads(message.payload)["id"], "ok": True, "result": 5})
        return Ack()

    said(answered_first)
    station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.result, command.due_at, told) == (ANSWERED, 5, None, ["reboot"])
    assert command.acknowledged_at is not None


def test_a_command_of_qos_0_is_sent_and_never_acknowledged(said, station, told, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["reboot"], "qos", 0)
    said(Ack())

    station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.acknowledged_at, told) == (SENT, None, ["reboot"])
    assert command.due_at == command.deadline


def test_a_receiver_that_fails_changes_nothing(said, station):
    def broken(**_):
        raise ZeroDivisionError

    said(Ack())
    signals.device_command_sent.connect(broken)
    try:
        station.device.send_command("reboot")
    finally:
        signals.device_command_sent.disconnect(broken)

    assert the_command().state == ACKNOWLEDGED


def test_a_receiver_may_send_the_next_command(said, station):
    def go_on(device, command, **_):
        if command == "reboot":
            device.send_command("set_interval", {"interval": 5})

    said(Ack())
    signals.device_command_sent.connect(go_on)
    try:
        station.device.send_command("reboot")
        assert {command.state for command in DeviceCommand.objects.all()} == {ACKNOWLEDGED}
        queue(station)
        assert commands.send_due() == 1
    finally:
        signals.device_command_sent.disconnect(go_on)

    assert DeviceCommand.objects.filter(state=ACKNOWLEDGED).count() == 4


# --- Deadlines


def expired(command):
    """The same one, an hour later."""
    DeviceCommand.objects.filter(pk=command.pk).update(
        deadline=clock.now(), due_at=clock.now(), leased_until=None
    )
    assert commands.send_due() == 0
    command.refresh_from_db()
    return command


def test_what_was_not_sent_expires(no_broker, station):
    station.device.send_command("reboot")

    command = expired(the_command())

    assert (command.state, command.due_at) == (EXPIRED, None)
    assert command.error.startswith("it was not sent before the deadline: no connection to ")
    assert command.ended_at is not None


def test_no_attempt_is_put_off_beyond_the_deadline(no_broker, station):
    commands.send(station.device, "reboot", deadline=timedelta(seconds=0.5))

    assert eventually(lambda: commands.send_due() or the_command().state == EXPIRED, seconds=2)


@pytest.fixture
def while_connecting(said, monkeypatch):
    """Let something happen while the connection to the broker is being made, which takes its time."""

    def happens(event):
        class Slow(FakeConnection):
            def __init__(self, *_, **__):
                event()

        monkeypatch.setattr(mqtt, "Connection", Slow)

    return happens


def test_nothing_is_published_after_its_deadline(while_connecting, said, station):
    published = []
    said(lambda message: published.append(message) or Ack())
    while_connecting(lambda: eventually(lambda: clock.now() > the_command().deadline))

    commands.send(station.device, "reboot", deadline=timedelta(seconds=0.2))

    assert (published, the_command().state) == ([], QUEUED)
    commands.send_due()
    assert (the_command().state, the_command().error) == (EXPIRED, "it was not sent before the deadline")


def test_nothing_is_published_to_a_device_that_was_disabled_meanwhile(while_connecting, said, station):
    published = []
    said(lambda message: published.append(message) or Ack())
    while_connecting(lambda: WeatherStationDevice.objects.update(is_active=False))

    station.device.send_command("reboot")

    assert (published, the_command().state) == ([], FAILED)
    assert the_command().error == "weatherstation/STATION-001 is disabled"


def test_what_was_not_answered_expires_and_a_late_answer_is_kept(said, station, monkeypatch):
    heard = []
    monkeypatch.setattr(WeatherStation, "on_command_response", lambda *arguments: heard.append(arguments))
    said(Ack())
    command_id = station.device.send_command("reboot")
    command = expired(the_command())
    assert (command.state, command.error) == (EXPIRED, "no answer came before the deadline")

    assert reply(station, {"id": command_id, "ok": True, "result": 1}) is Outcome.STORED

    command.refresh_from_db()
    assert (command.state, command.result, command.succeeded, heard) == (EXPIRED, 1, False, [])
    assert command.answered_at is not None


def test_an_answer_that_comes_before_anybody_looked_at_the_deadline_is_late_too(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")

    reply(station, {"id": command_id, "ok": True}, at=clock.now() + 2 * HOUR)

    command = the_command()
    assert (command.state, command.error) == (EXPIRED, "the answer came after the deadline")
    assert command.ended_at == command.deadline


@pytest.mark.parametrize("deadline", [timedelta(0), -HOUR, timedelta(days=367)])
def test_a_deadline_is_in_the_future_and_not_far(no_broker, station, deadline):
    with pytest.raises(ValueError, match="A deadline is later than now and within 366 days"):
        commands.send(station.device, "reboot", deadline=deadline)

    assert not DeviceCommand.objects.exists()


def test_the_deadline_is_a_setting(no_broker, station, settings):
    settings.DEVICEHUB_COMMAND_DEADLINE = 90

    station.device.send_command("reboot")

    assert the_command().deadline - the_command().queued_at == timedelta(seconds=90)


# --- Clocks


@pytest.mark.parametrize("ahead", [HOUR, timedelta(days=4000)])
@pytest.mark.parametrize("is_claimed", [False, True])
def test_what_a_clock_that_was_ahead_queued_is_sent_now(said, station, ahead, is_claimed):
    """Also when a process had claimed it then, and was killed."""
    then = clock.now() + ahead
    leased = {"leased_until": then} if is_claimed else {}
    queue(station, queued_at=then, deadline=then + HOUR, due_at=then, **leased)
    said(Ack())

    assert commands.send_due() == 1

    command = the_command()
    assert (command.state, command.due_at) == (ACKNOWLEDGED, command.deadline)
    assert (command.queued_at, command.deadline) == (then, then + HOUR)


def test_a_clock_that_is_behind_changes_no_deadline(no_broker, station):
    """It takes what others wrote for the work of a clock that was ahead."""
    command_id = station.device.send_command("reboot")
    before = DeviceCommand.objects.values("queued_at", "deadline").get(id=command_id)

    transitions.amend_times(clock.now() - HOUR)

    assert DeviceCommand.objects.values("queued_at", "deadline").get(id=command_id) == before


@pytest.mark.parametrize("state", [QUEUED, SENT])
def test_an_attempt_that_a_clock_put_off_for_long_is_made_now(said, station, state):
    """Also one of a process that was killed, whose lease would not end."""
    then = clock.now() + HOUR
    queue(station, state=state, deadline=then + HOUR, due_at=then, leased_until=then)
    said(Ack())

    assert commands.send_due() == 1


def test_the_clocks_of_two_machines_may_differ_by_minutes(said, station):
    then = clock.now() + timedelta(minutes=4)
    queue(station, queued_at=then, deadline=then + HOUR, due_at=then, leased_until=then)
    before = DeviceCommand.objects.values().get()
    said(Ack())

    assert commands.send_due() == 0

    assert DeviceCommand.objects.values().get() == before


def test_a_command_of_qos_0_that_was_not_sent_whole_is_sent_once_more(said, station, told, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["reboot"], "qos", 0)
    queue(station)
    said(Unacknowledged("the connection was lost"))
    commands.send_due()
    assert (the_command().state, told) == (SENT, [])

    said(Ack())
    commands.close()
    make_due()
    assert commands.send_due() == 1

    command = the_command()
    assert (command.state, command.error, command.leased_until) == (SENT, "", None)
    assert command.due_at == command.deadline


def test_what_a_killed_process_may_have_sent_is_not_cancelled_after_a_failed_attempt(no_broker, station):
    over = clock.now() - timedelta(seconds=1)
    queue(station, due_at=over, leased_until=over, attempts=1)

    for _ in range(2):  # the second one is not tried, since the broker is away
        commands.send_due()
        DeviceCommand.objects.update(due_at=clock.now())

    assert the_command().state == QUEUED
    assert not commands.cancel(the_command())


def test_a_command_of_qos_0_is_not_sent_again_for_its_times(said, station):
    deadline = clock.now() + HOUR
    queue(station, state=SENT, deadline=deadline, due_at=deadline)
    said(Ack())

    assert commands.send_due() == 0


# --- Answers


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"ok": True, "result": {"a": [1]}}, ""),
        ({"ok": False, "error": "jammed"}, "jammed"),
        ({"ok": False, "error": {"code": 7}}, '{"code": 7}'),
        ({"ok": False, "error": [2**70]}, "[1180591620717411303424]"),
        ({"ok": False}, ""),
        ({"ok": False, "error": "x" * 1000}, "x" * 500),
    ],
)
def test_an_answer_is_kept_whole_with_its_error_in_words(said, station, document, error):
    said(Ack())
    document = {"id": station.device.send_command("reboot"), **document}

    assert reply(station, document) is Outcome.STORED

    command = the_command()
    assert (command.state, command.response, command.error) == (ANSWERED, document, error)
    assert (command.succeeded, command.due_at) == (document["ok"], None)


def test_a_second_answer_changes_nothing(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")
    reply(station, {"id": command_id, "ok": True, "result": 1})
    before = DeviceCommand.objects.values().get()

    reply(station, {"id": command_id, "ok": False, "error": "no"})

    assert DeviceCommand.objects.values().get() == before


def test_nobody_answers_another_devices_command(said, station, neighbour):
    said(Ack())
    command_id = station.device.send_command("reboot")
    before = DeviceCommand.objects.values().get()

    assert reply(neighbour, {"id": command_id, "ok": True}) is Outcome.STORED
    assert reply(neighbour, {"ok": True}, correlation_id=command_id) is Outcome.STORED

    assert DeviceCommand.objects.values().get() == before


def test_the_correlation_data_stands_for_a_missing_id(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")

    assert reply(station, {"ok": True}, correlation_id=command_id) is Outcome.STORED

    assert the_command().state == ANSWERED
    assert the_command().response == {"ok": True, "id": command_id}


@pytest.mark.parametrize("own", [17, "17", "", True, {"n": 1}, "x" * 40])
def test_the_correlation_data_stands_for_an_id_that_is_no_commands(said, station, own):
    said(Ack())
    command_id = station.device.send_command("reboot")

    assert reply(station, {"id": own, "ok": True}, correlation_id=command_id) is Outcome.STORED

    assert the_command().state == ANSWERED
    assert the_command().response == {"ok": True, "id": command_id}


def test_correlation_data_that_is_no_commands_changes_no_id(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")

    assert reply(station, {"id": 17, "ok": True}, correlation_id="mine") is Outcome.STORED
    assert the_command().state == ACKNOWLEDGED
    reply(station, {"id": command_id, "ok": True}, correlation_id="mine")

    assert the_command().state == ANSWERED


def test_the_id_in_the_payload_goes_before_the_correlation_data(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")

    reply(station, {"id": str(uuid.UUID(int=1)), "ok": True}, correlation_id=command_id)

    assert the_command().state == ACKNOWLEDGED


@pytest.mark.parametrize(
    "document", [{}, {"ok": 1}, {"ok": "true"}, {"ok": None}, {"ok": True, "result": "x" * 70_000}]
)
def test_what_is_no_answer_answers_nothing(said, station, document):
    said(Ack())
    command_id = station.device.send_command("reboot")

    assert reply(station, {"id": command_id, **document}) is Outcome.FAILED

    assert the_command().state == ACKNOWLEDGED


# --- Cancelled, disabled, deleted


def test_a_queued_command_can_be_cancelled_once(no_broker, station):
    station.device.send_command("reboot")

    assert commands.cancel(the_command())
    assert not commands.cancel(the_command())

    assert (the_command().state, the_command().due_at) == (CANCELLED, None)
    assert the_command().ended_at is not None
    make_due()
    assert commands.send_due() == 0


def test_what_is_on_its_way_cannot_be_cancelled(said, station):
    tried = []

    def cancel(message):
        tried.append(commands.cancel(the_command()))
        return Ack()

    said(cancel)
    station.device.send_command("reboot")

    assert (tried, the_command().state) == ([False], ACKNOWLEDGED)
    assert not commands.cancel(the_command())


def test_what_a_killed_process_may_have_sent_is_neither_cancelled_nor_called_unsent(
    broker, url, station, arrive
):
    device = arrive(broker, station)
    killed(SEND.format(patch="sender._conclude = die"))
    assert eventually(lambda: device.received)
    DeviceCommand.objects.update(due_at=clock.now(), leased_until=clock.now())

    assert not commands.cancel(the_command())

    DeviceCommand.objects.update(deadline=clock.now())
    commands.send_due()
    assert the_command().state == EXPIRED
    assert (
        the_command().error == "the process that was sending it ended, and no answer came before the deadline"
    )


def test_the_admin_shows_commands_and_cancels_queued_ones(admin_client, no_broker, said, station):
    page = "/admin/devicehub/devicecommand/"
    waiting, over = queue(station), queue(station, state=ANSWERED, due_at=None)

    assert "STATION-001" in admin_client.get(f"{page}?state=queued").content.decode()
    form = {"action": "cancel", "_selected_action": [str(waiting.id), str(over.id)]}
    answer = admin_client.post(page, form, follow=True).content.decode()

    assert "1 cancelled." in answer
    assert "1 was over, on its way or may have arrived" in answer
    states = dict(DeviceCommand.objects.values_list("id", "state"))
    assert states == {waiting.id: CANCELLED, over.id: ANSWERED}


def change_page(client, command):
    return client.get(f"/admin/devicehub/devicecommand/{command.id}/change/").content.decode()


def test_the_page_of_a_command_says_all_of_it(admin_client, station):
    now = clock.now()
    waiting = queue(station, payload={"n": 42}, error="the device is away", due_at=now + MINUTE)
    untried = queue(station)
    over = queue(
        station, state=ANSWERED, due_at=None, answered_at=now, response={"ok": True, "result": {"°C": 21.5}}
    )

    page = change_page(admin_client, waiting)
    for text in (str(waiting.id), "the device is away", "Next attempt", "Deadline", "42"):
        assert text in page
    assert "nobody has tried it yet" in change_page(admin_client, untried)
    assert escape('{"°C": 21.5}') in change_page(admin_client, over)
    assert "nobody has tried it yet" in admin_client.get("/admin/devicehub/devicecommand/").content.decode()


def test_a_queued_command_is_cancelled_on_its_page(admin_client, station):
    waiting, sent = queue(station), queue(station, state=ACKNOWLEDGED)
    assert "Cancel this command" not in change_page(admin_client, sent)
    (form,) = re.findall(
        r'<form method="post" action="([^"]+)"[^>]*>(.*?)</form>', change_page(admin_client, waiting), re.S
    )
    assert "Cancel this command" in form[1]
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]+)"', form[1]))
    assert fields.pop("csrfmiddlewaretoken")

    answer = admin_client.post(form[0], fields, follow=True).content.decode()

    assert "1 cancelled." in answer
    waiting.refresh_from_db()
    assert waiting.state == CANCELLED


def test_who_may_only_look_cannot_cancel(client, django_user_model, station):
    reader = django_user_model.objects.create_user("reader", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_devicecommand"))
    client.force_login(reader)
    waiting = queue(station)
    page = change_page(client, waiting)
    assert str(waiting.id) in page
    assert "Cancel this command" not in page

    client.post(
        "/admin/devicehub/devicecommand/", {"action": "cancel", "_selected_action": [str(waiting.id)]}
    )

    assert the_command().state == QUEUED


def test_a_disabled_device_gets_no_command(said, station, told):
    said(Ack())
    station.device.is_active = False

    with pytest.raises(commands.CommandNotSent, match="weatherstation/STATION-001 is disabled"):
        station.device.send_command("reboot")

    assert not DeviceCommand.objects.exists()


@pytest.mark.parametrize("key", ["weatherstation/STATION-001", "weatherstation/GONE", "gone/STATION-001"])
def test_what_has_nobody_to_go_to_any_more_fails(said, station, told, key):
    said(Ack())
    WeatherStationDevice.objects.update(is_active=False)
    DeviceCommand.objects.create(device_key=key, name="reboot")

    assert commands.send_due() == 0

    assert (the_command().state, told) == (FAILED, [])
    assert the_command().error in (
        "weatherstation/STATION-001 is disabled",
        "there is no weatherstation/GONE any more",
        "there is no device type 'gone' any more",
    )


def test_a_command_that_its_type_lost_fails_and_harms_no_other(said, station):
    said(Ack())
    queue(station, "explode")
    queue(station)

    assert commands.send_due() == 1

    assert (
        DeviceCommand.objects.get(name="explode").error == "WeatherStation has no command 'explode' any more"
    )


def test_a_deleted_devices_open_commands_go_and_its_history_stays(station, neighbour):
    for state in CommandState:
        queue(station, state=state)
    queue(neighbour)

    WeatherStationDevice.objects.filter(device_id="STATION-001").delete()

    left = DeviceCommand.objects.values_list("device_key", "state")
    assert sorted(left) == [
        ("weatherstation/STATION-001", state) for state in sorted([ANSWERED, FAILED, EXPIRED, CANCELLED])
    ] + [("weatherstation/STATION-002", QUEUED)]


# --- Parameters


@pytest.mark.parametrize("text", ["a\x00b", "\x00"])
def test_a_nul_is_refused_alike_everywhere(station, text, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["set_interval"], "payload", {"interval": dict})

    with pytest.raises(ValueError, match="NUL"):
        station.device.send_command("set_interval", {"interval": {"x": [text]}})
    with pytest.raises(TypeError):
        station.device.send_command("set_interval", {"interval": {"x": "\ud800"}})

    assert not DeviceCommand.objects.exists()


@pytest.mark.parametrize("value", [1e16, -1e16, 1.7e308])
def test_a_float_that_comes_back_as_an_integer_is_refused_alike_everywhere(station, value, monkeypatch):
    command = WeatherStation._commands["set_interval"]
    monkeypatch.setattr(command, "payload", {"interval": float})
    with pytest.raises(ValueError, match="of 1e16 and more, which databases do not keep alike"):
        station.device.send_command("set_interval", {"interval": value})

    monkeypatch.setattr(command, "payload", {"interval": list})
    with pytest.raises(ValueError, match="of 1e16 and more"):
        station.device.send_command("set_interval", {"interval": [{"x": value}]})

    assert not DeviceCommand.objects.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "wrapped", [lambda x: [x], lambda x: [{"a": [1, (x,)]}]], ids=["in a list", "deep inside"]
)
def test_what_is_not_finite_is_refused_however_deep_it_is(station, value, wrapped, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["set_interval"], "payload", {"interval": list})

    with pytest.raises(ValueError, match="holds a number that is not finite"):
        station.device.send_command("set_interval", {"interval": wrapped(value)})

    assert not DeviceCommand.objects.exists()


def test_a_payload_has_at_most_256_kib(no_broker, station, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["set_interval"], "payload", {"interval": str})
    frame = len('{"interval":""}')

    with pytest.raises(ValueError, match="The payload has 262145 bytes, and may have 262144"):
        station.device.send_command("set_interval", {"interval": "x" * (262_145 - frame)})
    assert not DeviceCommand.objects.exists()

    station.device.send_command("set_interval", {"interval": "x" * (262_144 - frame)})
    assert the_command().state == QUEUED


def test_parameters_are_kept_exactly(no_broker, station, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["set_interval"], "payload", {"interval": list})
    values = [9999999999999998.0, -0.5, 1.0, 5e-324, 2**64 - 1, -(2**63), True, None, "\ufffd", [], {}]

    station.device.send_command("set_interval", {"interval": values})

    kept = the_command().payload["interval"]
    assert [repr(value) for value in kept] == [repr(value) for value in values]


def test_send_checks_what_send_command_checks(station):
    with pytest.raises(ValueError, match="no command 'explode'"):
        commands.send(station.device, "explode")
    with pytest.raises(TypeError):
        commands.send(station.device, "set_interval", {"interval": "60"})
    with pytest.raises(ValueError, match="no broker 'other'"):
        commands.send(station.device, "reboot", None, "other")


# --- manage.py send_command


def run(*arguments):
    """The exit code, and what was written."""
    return run_command("send_command", "weatherstation", *arguments)


def run_command(*arguments):
    out, err = StringIO(), OutputWrapper(StringIO())
    code = 0
    try:
        call_command(*arguments, stdout=out, stderr=err)
    except SystemExit as ended:
        code = ended.code
    return code, out.getvalue(), err._out.getvalue()


def answering(who, document):
    def publish(message):
        reply(who, {"id": json.loads(message.payload)["id"], **document})
        return Ack()

    return publish


def test_the_command_line_ends_with_0_when_the_broker_has_it(said, station):
    said(Ack())

    code, out, err = run("STATION-001", "set_interval", '{"interval": 60}')

    assert (code, err) == (0, "")
    assert out == f"{the_command().id}: set_interval to weatherstation/STATION-001 is acknowledged\n"
    assert the_command().payload == {"interval": 60}


def test_the_command_line_prints_the_devices_result(said, station):
    said(answering(station, {"ok": True, "result": [1]}))

    code, out, _ = run("STATION-001", "reboot", "--wait", "5s")

    assert (code, out) == (0, f"{the_command().id}: reboot to weatherstation/STATION-001 is answered: [1]\n")


def test_the_command_line_ends_with_1_when_the_device_could_not(said, station):
    said(answering(station, {"ok": False, "error": "jammed"}))

    code, out, err = run("STATION-001", "reboot", "--wait", "5s")

    assert (code, out) == (1, "")
    assert err.strip().endswith("is answered: the device could not: jammed")


def test_the_command_line_says_that_nobody_answered(said, station):
    said(Ack())

    code, _, err = run("STATION-001", "reboot", "--wait", "1s")

    assert code == 1
    assert err.strip().endswith(
        "is acknowledged, without an answer within 1 s (list_commands shows what waits)"
    )


def test_the_command_line_says_that_it_waits(no_broker, station):
    code, out, err = run("STATION-001", "reboot", "--deadline", "10m")

    assert (code, out) == (1, "")
    assert "reboot to weatherstation/STATION-001 is queued until " in err
    assert "UTC: no connection to 127.0.0.1:" in err
    assert len(err.splitlines()) == 1
    assert the_command().deadline - the_command().queued_at == timedelta(minutes=10)


def test_the_command_line_ends_with_1_without_the_brokers_acknowledgement(said, station):
    said(Unacknowledged("no ack"))

    code, out, err = run("STATION-001", "reboot")

    assert (code, out) == (1, "")
    assert err.strip().endswith("is sent: no ack; may this account publish there, and as much?")


def test_the_command_line_ends_with_0_when_a_command_of_qos_0_is_sent(said, station, monkeypatch):
    said(Ack())
    monkeypatch.setattr(WeatherStation._commands["reboot"], "qos", 0)

    code, out, err = run("STATION-001", "reboot")

    assert (code, err) == (0, "")
    assert out.strip().endswith("is sent")


def test_waiting_ends_with_the_deadline(said, station, monkeypatch):
    monkeypatch.setattr("devicehub.management.commands.send_command.GRACE", timedelta(0))
    said(Ack())

    code, _, err = run("STATION-001", "reboot", "--deadline", "1s", "--wait", "1h")

    assert code == 1
    assert err.strip().endswith("is acknowledged, and its deadline has passed: is listen_mqtt running?")


def test_what_a_device_says_stays_on_its_line(said, station):
    """Line breaks, and what would move the cursor or rename the window of a terminal."""
    said(answering(station, {"ok": False, "error": "jammed\n\x1b]0;owned\x07\u202e"}))

    _, _, err = run("STATION-001", "reboot", "--wait", "5s")

    assert err.strip().endswith("the device could not: jammed\\n\\x1b]0;owned\\x07\\u202e")


@pytest.mark.parametrize("arguments", [[], ["--wait", "1h"]], ids=["publishing", "waiting"])
def test_ctrl_c_ends_the_waiting_and_not_the_command(said, station, monkeypatch, arguments):
    def interrupt(_):
        raise KeyboardInterrupt

    said(Ack() if arguments else interrupt)
    monkeypatch.setattr("time.sleep", interrupt)

    code, out, err = run("STATION-001", "reboot", *arguments)

    assert (code, out, len(err.splitlines())) == (130, "", 1)
    assert err.startswith(
        f"{the_command().id}: reboot to weatherstation/STATION-001 is {the_command().state}"
    )


def test_ctrl_c_before_the_commit_queues_nothing(station, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(DeviceCommand, "save", interrupt)

    assert run("STATION-001", "reboot") == (130, "", "Nothing was queued\n")
    assert not DeviceCommand.objects.exists()


def test_a_process_that_waits_ends_at_once_on_ctrl_c(broker, url, station, arrive):
    device = arrive(broker, station)
    command = [sys.executable, "manage.py", "send_command", "weatherstation", "STATION-001", "reboot"]
    waiting = subprocess.Popen(
        [*command, "--wait", "1h"], env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert eventually(lambda: device.received and the_command().state == ACKNOWLEDGED)

    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=10)

    assert (waiting.returncode, len(err.splitlines())) == (130, 1)


def test_a_database_that_fails_is_said_in_one_line(station, monkeypatch):
    def fail(*_, **__):
        raise OperationalError("the server\n  is away")

    monkeypatch.setattr(DeviceCommand, "save", fail)

    with pytest.raises(CommandError) as error:
        run("STATION-001", "reboot")

    assert str(error.value) == (
        "The database fails: the server is away; look with list_commands before you send it again"
    )


@pytest.mark.parametrize("model", [DeviceCommand, WeatherStationDevice])
def test_the_command_line_says_that_the_command_was_deleted(said, station, monkeypatch, model):
    said(Ack())
    monkeypatch.setattr("time.sleep", lambda _: model.objects.all().delete())

    with pytest.raises(CommandError, match="the command was deleted") as error:
        run("STATION-001", "reboot", "--wait", "5s")

    assert len(str(error.value).splitlines()) == 1


def test_the_command_line_in_json(said, station):
    said(answering(station, {"ok": False, "error": "jammed"}))

    code, out, _ = run("STATION-001", "reboot", "--json")

    answer = json.loads(out)
    assert code == 1
    assert (answer["id"], answer["state"], answer["error"]) == (str(the_command().id), "answered", "jammed")
    assert answer["response"]["ok"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["STRANGER", "reboot"], "There is no weatherstation/STRANGER"),
        (["STATION-001", "explode"], "no command 'explode'"),
        (["STATION-001", "set_interval"], "The parameter interval is missing"),
        (["STATION-001", "set_interval", '{"interval": "x"}'], "interval must be int"),
        (["STATION-001", "set_interval", "[5]"], "parameters are a JSON object"),
        (["STATION-001", "set_interval", "{"], "'{' is no JSON: Expecting property name"),
        (["STATION-001", "set_interval", "{}" + "x" * 1000], "x' is no JSON: Extra data"),
        (["STATION-001", "set_interval", '{"a":' * 9000], "is no JSON: maximum recursion depth exceeded"),
        (["STATION-001", "set_interval", '{"interval": NaN}'], "interval must be int"),
    ],
)
def test_what_cannot_be_sent_is_said_in_one_line(station, arguments, words):
    with pytest.raises(CommandError) as error:
        run(*arguments)

    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300
    assert not DeviceCommand.objects.exists()


# --- manage.py list_commands, cancel_command


def test_the_list_shows_what_waits_and_why(station, neighbour):
    now = clock.now()
    queue(station, queued_at=now, error="no connection to 127.0.0.1:1883")
    queue(neighbour, queued_at=now + MINUTE)
    sent = queue(station, "set_interval", queued_at=now + 2 * MINUTE, state=ACKNOWLEDGED)
    queue(station, state=FAILED, due_at=None, error="weatherstation/STATION-001 is disabled")

    code, out, _ = run_command("list_commands")

    lines = out.splitlines()
    assert (code, len(lines)) == (0, 3)
    assert lines[0] == f"{sent.id}: set_interval to weatherstation/STATION-001 is acknowledged"
    assert "reboot to weatherstation/STATION-002 is queued until " in lines[1]
    assert lines[1].endswith("UTC: nobody has tried it yet")
    assert lines[2].endswith("UTC: no connection to 127.0.0.1:1883")
    assert len(run_command("list_commands", "weatherstation")[1].splitlines()) == 3
    assert run_command("list_commands", "weatherstation", "STATION-002")[1] == f"{lines[1]}\n"
    assert run_command("list_commands", "irrigationvalve")[1] == "No command waits\n"
    assert run_command("list_commands", "--state", "failed")[1].endswith(
        "is failed: weatherstation/STATION-001 is disabled\n"
    )
    found = json.loads(
        run_command("list_commands", "--state", "acknowledged", "--state", "sent", "--json")[1]
    )
    assert [(one["id"], one["state"], one["due_at"] is None) for one in found] == [
        (str(sent.id), "acknowledged", False)
    ]


def test_a_terminal_gets_a_table_of_what_waits(station, monkeypatch):
    """What stands in brackets is no markup."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    command = queue(station, error="[/red] [Errno 111] :smile:\x1b[2J")

    out = run_command("list_commands")[1]

    assert str(command.id) in out
    assert r"[/red] [Errno 111] :smile:\x1b[2J" in out


def test_a_long_list_says_how_many_more_there_are(station, monkeypatch):
    monkeypatch.setattr("devicehub.management.commands.list_commands.SHOWN", 2)
    for _ in range(5):
        queue(station)

    assert run_command("list_commands")[1].splitlines()[2:] == ["(3 more; --json shows all)"]
    assert len(json.loads(run_command("list_commands", "--json")[1])) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["weathrstation"], "no device type 'weathrstation'"), (["weatherstation", "GONE"], "There is no ")],
)
def test_a_list_of_what_never_was_is_an_error(station, arguments, words):
    with pytest.raises(CommandError, match=words):
        run_command("list_commands", *arguments)


def test_a_deleted_device_has_a_list_of_what_is_over(station):
    queue(station, state=EXPIRED, due_at=None)
    station.device.delete()

    out = run_command("list_commands", "weatherstation", "STATION-001", "--state", "expired")[1]

    assert out.strip().endswith("is expired")


def test_queued_commands_are_cancelled_from_the_shell(station):
    one, two = queue(station), queue(station, error="the device is away")

    code, out, err = run_command("cancel_command", str(one.id), str(two.id))

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{command.id}: reboot to weatherstation/STATION-001 is cancelled" for command in (one, two)
    ]
    assert {command.state for command in DeviceCommand.objects.all()} == {CANCELLED}
    assert run_command("cancel_command", str(one.id))[0] == 0, "as it was asked"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"leased_until": clock.now() + HOUR}, "a process is sending it; try again in half a minute"),
        (
            {"leased_until": clock.now()},
            "a process ended while it sent it: it is too late to cancel it, the device may have it",
        ),
        ({"state": SENT}, "is sent: it is too late to cancel it, the device may have it"),
        ({"state": ACKNOWLEDGED}, "is acknowledged: it is too late to cancel it, the device may have it"),
        ({"state": EXPIRED, "due_at": None}, "is expired; it was over before"),
    ],
)
def test_what_cannot_be_cancelled_says_why_and_the_others_are(station, fields, words):
    late, waiting = queue(station, **fields), queue(station)

    code, out, err = run_command("cancel_command", str(late.id), str(waiting.id))

    assert (code, out) == (1, f"{waiting.id}: reboot to weatherstation/STATION-001 is cancelled\n")
    assert err.strip().endswith(words)
    late.refresh_from_db()
    assert late.state == fields.get("state", QUEUED)


def test_a_cancelled_command_in_json_and_one_that_never_was(station):
    waiting, nobodys = queue(station), uuid.UUID(int=1)

    code, out, err = run_command("cancel_command", str(waiting.id), str(nobodys), "--json")

    assert (code, err) == (1, f"{nobodys}: there is no such command\n")
    assert [(one["id"], one["state"]) for one in json.loads(out)] == [(str(waiting.id), "cancelled")]
    with pytest.raises(CommandError, match="'x' is no id of a command; list_commands shows them"):
        run_command("cancel_command", "x")


# --- The migration


def migrate(name):
    executor = MigrationExecutor(connection)
    executor.migrate([("devicehub", name)])
    return MigrationExecutor(connection).loader.project_state([("devicehub", name)]).apps


def test_commands_of_before_are_answered_or_expired_and_back(transactional_db):
    now = clock.now()
    try:
        before = migrate("0001_initial").get_model("devicehub", "SentCommand")
        one = before.objects.create(
            device_key="a/1", name="x", sent_at=now, answered_at=now, response={"ok": True}
        )
        two = before.objects.create(device_key="a/1", name="x", sent_at=now)
        migrate("0002_durable_commands")

        assert DeviceCommand.objects.get(id=one.id).state == ANSWERED
        command = DeviceCommand.objects.get(id=two.id)
        assert (command.state, command.due_at, command.queued_at) == (EXPIRED, None, now)
        DeviceCommand.objects.create(device_key="a/1", name="unsent")

        before = migrate("0001_initial").get_model("devicehub", "SentCommand")
        assert set(before.objects.values_list("id", flat=True)) == {one.id, two.id}
        assert before.objects.get(id=one.id).response == {"ok": True}
    finally:
        [(_, newest)] = MigrationExecutor(connection).loader.graph.leaf_nodes("devicehub")
        migrate(newest)
    connections.close_all()
