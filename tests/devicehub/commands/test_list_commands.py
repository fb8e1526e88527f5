"""`manage.py list_commands` and `cancel_command`."""

import json
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from django.core.management import CommandError
from django.utils import timezone as clock

from devicehub.commands import description
from devicehub.models import DeviceCommand
from rig.command_queue import (
    ACKNOWLEDGED,
    CANCELLED,
    EXPIRED,
    FAILED,
    HOUR,
    MINUTE,
    QUEUED,
    SENT,
    queue,
    run_command,
)

pytestmark = pytest.mark.sqlite_first

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
    assert lines[1].endswith("UTC: not tried yet")
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


def test_the_deadline_is_in_utc_whatever_its_zone():
    deadline = datetime(2026, 12, 1, 8, 3, 41, tzinfo=timezone(timedelta(hours=2)))
    command = DeviceCommand(name="reboot", device_key="weatherstation/STATION-001", deadline=deadline)

    assert "is queued until 2026-12-01 06:03:41 UTC: not tried yet" in description.in_words(command)


def test_a_terminal_gets_a_table_of_what_waits(station, monkeypatch):
    """Text in brackets is not markup."""
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
    assert run_command("cancel_command", str(one.id))[0] == 0, "it is cancelled already"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"leased_until": clock.now() + HOUR}, "a process is sending it; try again in half a minute"),
        (
            {"leased_until": clock.now()},
            "the process that was sending it ended: it is too late to cancel it, the device may have it",
        ),
        ({"state": SENT}, "is sent: it is too late to cancel it, the device may have it"),
        ({"state": ACKNOWLEDGED}, "is acknowledged: it is too late to cancel it, the device may have it"),
        ({"state": EXPIRED, "due_at": None}, "is expired; it had ended before"),
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
    with pytest.raises(CommandError, match="'x' is not the id of a command; list_commands shows the ids"):
        run_command("cancel_command", "x")
