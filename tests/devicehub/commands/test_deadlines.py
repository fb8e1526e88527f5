"""Deadlines and attempts of commands, also with clocks that are wrong."""

from datetime import timedelta

import pytest
from django.utils import timezone as clock

from devicehub import commands, mqtt
from devicehub.commands import transitions
from devicehub.messages.message import Outcome
from devicehub.models import DeviceCommand
from devicehub.mqtt import Ack, Unacknowledged
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice
from rig.command_queue import (
    ACKNOWLEDGED,
    EXPIRED,
    FAILED,
    HOUR,
    QUEUED,
    SENT,
    make_due,
    queue,
    reply,
    the_command,
)
from rig.hub import eventually

# --- Deadlines


def expired(command):
    """Let the deadline of *command* pass; return it as it is then."""
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
def while_connecting(memory_broker, monkeypatch):
    """Return a function that lets an event happen while the connection to the broker is being made."""

    def happens(event):
        def connect(*arguments, **options):
            event()
            return memory_broker.connect(*arguments, **options)

        monkeypatch.setattr(mqtt, "Connection", connect)

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
    with pytest.raises(ValueError, match="A deadline must be above 0 and at most 366 days"):
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
    """Also when a process had claimed it at that time, and was killed."""
    then = clock.now() + ahead
    leased = {"leased_until": then} if is_claimed else {}
    queue(station, queued_at=then, deadline=then + HOUR, due_at=then, **leased)
    said(Ack())

    assert commands.send_due() == 1

    command = the_command()
    assert (command.state, command.due_at) == (ACKNOWLEDGED, command.deadline)
    assert (command.queued_at, command.deadline) == (then, then + HOUR)


def test_a_clock_that_is_behind_changes_no_deadline(no_broker, station):
    """To such a clock, times that others wrote look like those of a clock that was ahead."""
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


def test_a_command_of_qos_0_that_was_not_sent_whole_is_sent_once_more(said, station, notified, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["reboot"], "qos", 0)
    queue(station)
    said(Unacknowledged("the connection was lost"))
    commands.send_due()
    assert (the_command().state, notified) == (SENT, [])

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

    for _ in range(2):  # The second attempt is not made, since the broker is away.
        commands.send_due()
        DeviceCommand.objects.update(due_at=clock.now())

    assert the_command().state == QUEUED
    assert not commands.cancel(the_command())


def test_a_command_of_qos_0_is_not_sent_again_for_its_times(said, station):
    deadline = clock.now() + HOUR
    queue(station, state=SENT, deadline=deadline, due_at=deadline)
    said(Ack())

    assert commands.send_due() == 0
