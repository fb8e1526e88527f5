"""Commands while the broker is away, refuses, or closes the connection: they wait, with the reason."""

from datetime import timedelta

import pytest
from django.utils import timezone as clock

from devicehub import commands, mqtt
from devicehub.models import DeviceCommand
from rig.command_queue import (
    ACKNOWLEDGED,
    ANSWERED,
    MINUTE,
    QUEUED,
    SENT,
    make_due,
    queue,
    running_mosquitto,
    the_command,
)
from rig.hub import eventually

pytestmark = pytest.mark.servers

# --- Without a broker


def test_without_a_broker_it_waits_and_says_why(no_broker, station, notified):
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
    assert notified == []


def test_what_waited_for_the_broker_is_sent_when_it_is_there(
    no_broker, station, arrive, tmp_path, needs_real, settings, notified
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
    assert sorted(notified) == ["reboot", "set_interval"]


def test_a_refused_login_is_no_command_sent(station, tmp_path, needs_real, settings, notified):
    passwords = tmp_path / "passwords"
    passwords.write_text("hub:$7$101$c2FsdHNhbHRzYWx0$" + "A" * 86 + "==\n")
    with running_mosquitto(tmp_path / "mosquitto", needs_real, f"password_file {passwords}\n") as port:
        settings.MQTT_URL = f"mqtt://hub:s3cret@127.0.0.1:{port}"
        station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.sent_at, notified) == (QUEUED, None, [])
    assert "refused the connection: Not authorized" in command.error
    assert "s3cret" not in command.error


def test_a_topic_that_the_account_may_not_publish_to_is_tried_again(
    station, tmp_path, needs_real, settings, notified
):
    """Brokers also answer "not authorized" while the service that they ask restarts."""
    rules = tmp_path / "rules"
    rules.write_text("topic read #\n")
    with running_mosquitto(tmp_path / "mosquitto", needs_real, f"acl_file {rules}\n") as port:
        settings.MQTT_URL = f"mqtt://127.0.0.1:{port}"
        station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.sent_at, notified) == (QUEUED, None, [])
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
        commands.close()  # The pause after the attempts without a broker is over.
        make_due()  # Of commands that are due together, the one that was queued first is sent first.

        def others_arrive():
            commands.send_due()
            return device.ids() == [other]

        assert eventually(others_arrive, 5)  # This is shorter than the time-out of an ack.
    assert DeviceCommand.objects.get(id=large).state == SENT
    assert "the connection was lost" in DeviceCommand.objects.get(id=large).error


def test_while_the_broker_is_away_there_is_no_connection_for_each_command(no_broker, station, monkeypatch):
    opened = []
    real = mqtt.Connection
    monkeypatch.setattr(mqtt, "Connection", lambda *a, **k: opened.append(1) or real(*a, **k))
    for _ in range(5):
        queue(station)

    assert commands.send_due() == 0

    assert len(opened) == 1
    assert {command.error[:13] for command in DeviceCommand.objects.all()} == {"no connection"}
    assert sorted(command.attempts for command in DeviceCommand.objects.all()) == [0, 0, 0, 0, 1]


def test_nothing_to_do_is_one_query(station, django_assert_num_queries):
    queue(station, state=ANSWERED, due_at=None)
    queue(station, due_at=clock.now() + MINUTE)

    commands.send_due()  # Once a minute it also searches for wrong times.

    with django_assert_num_queries(1):
        assert commands.send_due() == 0
