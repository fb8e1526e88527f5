"""Cancellation of queued commands."""

import pytest
from django.utils import timezone as clock

from devicehub import commands
from devicehub.models import DeviceCommand
from devicehub.mqtt import Ack
from rig.command_queue import ACKNOWLEDGED, CANCELLED, EXPIRED, SEND, killed, make_due, the_command
from rig.hub import eventually


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


@pytest.mark.servers
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
