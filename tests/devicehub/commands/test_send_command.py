"""`manage.py send_command`: what it prints, when it waits, and its exit codes."""

import json
import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from django.core.management import CommandError
from django.db import OperationalError

from devicehub.models import DeviceCommand
from devicehub.mqtt import Ack, Unacknowledged
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice
from rig.command_queue import ACKNOWLEDGED, reply, run_command, the_command
from rig.hub import ROOT, environment, eventually

pytestmark = pytest.mark.sqlite_first

# --- manage.py send_command


def run(*arguments):
    """Return the exit code, and the texts of standard output and standard error."""
    return run_command("send_command", "weatherstation", *arguments)


def answering(who, document):
    """Return the behaviour of a broker at which *who* answers each command with *document*, and which acks it."""

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
    assert err.strip().endswith("is answered: it failed on the device: jammed")


def test_the_command_line_says_that_no_answer_came(said, station):
    said(Ack())

    code, _, err = run("STATION-001", "reboot", "--wait", "1s")

    assert code == 1
    assert err.strip().endswith(
        "is acknowledged, without an answer within 1 s (list_commands shows its state)"
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
    assert err.strip().endswith("is sent: no ack; check that the account may publish there, at this size")


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
    """Line breaks and control characters, which could move the cursor or rename the window, are escaped."""
    said(answering(station, {"ok": False, "error": "jammed\n\x1b]0;owned\x07\u202e"}))

    _, _, err = run("STATION-001", "reboot", "--wait", "5s")

    assert err.strip().endswith("it failed on the device: jammed\\n\\x1b]0;owned\\x07\\u202e")


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


@pytest.mark.servers
@pytest.mark.sqlite_first
def test_a_process_that_waits_ends_at_once_on_ctrl_c(broker, url, station, arrive):
    device = arrive(broker, station)
    command = [sys.executable, "manage.py", "send_command", "weatherstation", "STATION-001", "reboot"]
    waiting = subprocess.Popen(
        [*command, "--wait", "1h"],
        env=environment(),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A process that a shell starts in the background ignores the signal, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        # A start of Django may take long on a busy machine.
        assert eventually(lambda: device.received and the_command().state == ACKNOWLEDGED, 30)

        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=10)
    finally:
        waiting.kill()

    assert (waiting.returncode, len(err.splitlines())) == (130, 1)


def test_a_database_that_fails_is_said_in_one_line(station, monkeypatch):
    def fail(*_, **__):
        raise OperationalError("the server\n  is away")

    monkeypatch.setattr(DeviceCommand, "save", fail)

    with pytest.raises(CommandError) as error:
        run("STATION-001", "reboot")

    assert str(error.value) == (
        "The database fails: the server is away; check list_commands before you send the command again"
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
        (["STATION-001", "set_interval", "[5]"], "parameters must be a JSON object"),
        (["STATION-001", "set_interval", "{"], "'{' is not JSON: Expecting property name"),
        (["STATION-001", "set_interval", "{}" + "x" * 1000], "x' is not JSON: Extra data"),
        (["STATION-001", "set_interval", '{"a":' * 9000], "is not JSON: maximum recursion depth exceeded"),
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
