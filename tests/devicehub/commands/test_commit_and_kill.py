"""Commands and transactions: nothing before the commit, nothing lost by a process that is killed."""

import json
import signal
import subprocess
import sys

import pytest
from django.db import transaction
from django.utils import timezone as clock

from devicehub import commands
from devicehub.commands import transitions
from devicehub.models import DeviceCommand
from devicehub.mqtt import Ack
from rig.command_queue import (
    ACKNOWLEDGED,
    ANSWERED,
    QUEUED,
    SEND,
    killed,
    make_due,
    queue,
    run_python,
    the_command,
)
from rig.hub import ROOT, environment, eventually

pytestmark = pytest.mark.servers

# --- The caller's transaction


def test_nothing_is_published_before_the_commit(said, station, notified):
    said(Ack())
    with transaction.atomic():
        station.device.send_command("reboot")
        assert (the_command().state, notified) == (QUEUED, [])

    assert (the_command().state, notified) == (ACKNOWLEDGED, ["reboot"])


def test_a_rolled_back_command_never_was(said, station, notified):
    said(Ack())
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        station.device.send_command("reboot")
        raise ZeroDivisionError

    assert (DeviceCommand.objects.count(), notified) == (0, [])


def test_a_bug_while_publishing_is_logged_and_the_command_sent_later(said, station):
    """The row is committed: an error would make the caller send it twice."""
    said(lambda message: 1 / 0)
    station.device.send_command("reboot")
    assert the_command().state == QUEUED

    said(Ack())
    make_due()
    assert commands.send_due() == 1


def test_killed_between_commit_and_publish_it_is_sent_once(broker, url, station, arrive, notified):
    device = arrive(broker, station)
    killed(SEND.format(patch="sender.send_now = die"))
    assert (the_command().state, the_command().attempts, device.received) == (QUEUED, 0, [])

    assert eventually(commands.send_due) == 1

    assert eventually(lambda: device.ids() == [str(the_command().id)])
    assert (the_command().state, notified) == (ACKNOWLEDGED, ["reboot"])


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

    # Another process takes a lease that has ended; then a failure of the first process changes nothing.
    late = now + transitions.LEASE
    other = the_command()
    assert transitions.claim(other, late)
    transitions.retry(mine, late, "too late")
    assert (the_command().error, the_command().attempts) == ("", 2)
    # Its ack is recorded, because it is true; the second ack is not new.
    assert transitions.record_sent(mine, ACKNOWLEDGED, now, late)
    assert not transitions.record_sent(other, ACKNOWLEDGED, late, late)
