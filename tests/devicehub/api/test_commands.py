"""Commands of a device: queued, followed and cancelled by programs, and read by the device."""

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.models import AuditEntry
from devicehub import commands, mqtt, roles
from devicehub.commands import sender
from devicehub.db.batches import Pace
from devicehub.kinds.registry import registry
from devicehub.models import CommandState, DeviceCommand, RepeatableRequest
from devicehub.removal.erase import erase
from fleet.models import WeatherStationDevice
from rig.cast import provision
from rig.programs import Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

KEY = "weatherstation/NORTH-1"
LIST = "/api/devices/weatherstation/NORTH-1/commands/"
SET = {"name": "set_interval", "payload": {"interval": 60}, "deadline": "1h"}


@pytest.fixture
def north():
    """Return a device at the site north."""
    return WeatherStationDevice.objects.create(device_id="NORTH-1", site="north")


@pytest.fixture
def caller(north):
    """Return a program of an administrator."""
    return program(person("ada"))


def stored(**fields):
    """Store a command to the device, with *fields* in place of its own."""
    return DeviceCommand.objects.create(**({"device_key": KEY, "name": "reboot"} | fields))


def test_a_command_is_queued_and_no_call_waits_for_a_broker(
    caller, monkeypatch, django_capture_on_commit_callbacks
):
    """The answer has the address of the command, which a worker publishes; the audit names the program."""
    monkeypatch.setattr(mqtt, "Connection", lambda *_, **__: pytest.fail("connected"))
    with django_capture_on_commit_callbacks(execute=True):
        made = caller.post(LIST, SET)
    assert made.status_code == 202
    row = DeviceCommand.objects.get()
    assert made["Location"] == f"{LIST}{row.pk}/"
    found = caller.get(made["Location"]).json()
    assert found == made.json()
    assert (found["device"], found["name"], found["payload"]) == (KEY, "set_interval", {"interval": 60})
    assert (found["state"], found["reason"], found["response"]) == ("queued", "not tried yet", None)
    assert row.deadline - row.queued_at == timedelta(hours=1)
    assert row.due_at == row.queued_at
    entry = AuditEntry.objects.get(action="command_sent")
    assert (entry.object_key, entry.actor_kind) == (KEY, "key")


def test_a_worker_publishes_it(caller, published):
    """It is due at once for every process that sends."""
    number = caller.post(LIST, {"name": "reboot"}).json()["id"]
    assert published == []
    assert commands.send_due() == 1
    assert [message.topic for message in published] == ["things/weatherstation/NORTH-1/cmd"]
    assert caller.get(f"{LIST}{number}/").json()["state"] == "acknowledged"
    sender.close()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "fly"}, "name"),
        ({"name": "set_interval"}, "payload.interval"),
        ({"name": "set_interval", "payload": {"interval": "60"}}, "payload.interval"),
        ({"name": "set_interval", "payload": {"interval": True}}, "payload.interval"),
        ({"name": "set_interval", "payload": {"interval": 1.5}}, "payload.interval"),
        ({"name": "set_interval", "payload": {"interval": 1, "unit": "s"}}, "payload.unit"),
        ({"name": "reboot", "payload": []}, "payload"),
        ({"name": "reboot", "payload": None}, "payload"),
        ({"name": "reboot", "deadline": "soon"}, "deadline"),
        ({"name": "reboot", "deadline": "0s"}, "deadline"),
        ({"name": "reboot", "deadline": "9999999d"}, "deadline"),
        ({"name": "reboot", "deadline": 60}, "deadline"),
        ({"name": "reboot", "force": True}, "force"),
    ],
)
def test_a_wrong_value_is_named(caller, body, field):
    """Each answer lists the field at fault, and nothing is queued."""
    answer = caller.post(LIST, body)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert not DeviceCommand.objects.exists()


def test_a_number_beyond_64_bits_is_refused(caller):
    """No database keeps it."""
    answer = caller.post(LIST, {"name": "set_interval", "payload": {"interval": 2**64}})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/unreadable-body")


def test_numbers_keep_their_64_bits(caller):
    """The largest whole number of the database comes back as it was sent."""
    most = 2**63 - 1
    made = caller.post(LIST, {"name": "set_interval", "payload": {"interval": most}})
    assert made.json()["payload"] == {"interval": most}
    assert f'"interval":{most}' in caller.get(made["Location"]).content.decode()


def test_a_disabled_device_gets_no_command(caller, north):
    """It is 409 with what to do."""
    WeatherStationDevice.objects.update(is_active=False)
    answer = caller.post(LIST, SET)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/conflict")
    assert answer.json()["detail"] == f"{KEY} is disabled. Enable it first."


def test_a_repetition_queues_no_second_command(caller):
    """It gets the first answer again, with its address."""
    first = caller.post(LIST, SET, Idempotency_Key="one")
    again = caller.post(LIST, SET, Idempotency_Key="one")
    assert (again.status_code, again.json(), again["Location"]) == (202, first.json(), first["Location"])
    assert DeviceCommand.objects.count() == 1


def test_a_kept_answer_is_erased_with_the_device(caller):
    """It holds the parameters of the command."""
    assert caller.post(LIST, SET, Idempotency_Key="one").status_code == 202
    assert RepeatableRequest.objects.get().answer["payload"] == {"interval": 60}
    erase(registry.get("weatherstation"), "NORTH-1", Pace())
    assert not RepeatableRequest.objects.exists()


def test_a_queued_command_is_cancelled_once(caller):
    """The second time is 409, because it has ended."""
    url = f"{LIST}{stored().pk}/"
    gone = caller.delete(url)
    assert (gone.status_code, gone.json()["state"]) == (200, "cancelled")
    assert gone.json()["ended_at"] is not None
    again = caller.delete(url)
    assert (again.status_code, again.json()["detail"]) == (409, "The command has ended: it is cancelled.")
    assert AuditEntry.objects.filter(action="command_cancelled").count() == 1


@pytest.mark.parametrize(
    ("state", "lease", "reason"),
    [
        (CommandState.QUEUED, 30, "A process is sending the command. Read it again in a moment."),
        (CommandState.QUEUED, -1, "The process that was sending the command ended, so it may have arrived."),
        (CommandState.SENT, None, "The command was sent, so it may have arrived."),
        (CommandState.ACKNOWLEDGED, None, "The command was sent, so it may have arrived."),
        (CommandState.EXPIRED, None, "The command has ended: it is expired."),
    ],
)
def test_a_command_on_its_way_is_not_cancelled(caller, state, lease, reason):
    """The answer says why, and its state stays."""
    until = None if lease is None else timezone.now() + timedelta(seconds=lease)
    row = stored(state=state, leased_until=until)
    answer = caller.delete(f"{LIST}{row.pk}/")
    assert (answer.status_code, answer.json()["detail"]) == (409, reason)
    row.refresh_from_db()
    assert row.state == state


def test_the_list_is_filtered_and_comes_in_pages(caller):
    """The newest is first; commands of other devices are not in it."""
    stored(device_key="weatherstation/SOUTH-1")
    now = timezone.now()
    rows = [stored(queued_at=now, name=name) for name in ("reboot", "set_interval", "reboot")]
    rows.append(stored(queued_at=now - timedelta(minutes=1), state="answered", response={"ok": True}))
    seen, url = [], f"{LIST}?limit=2&fields=id,response"
    while url:
        page = caller.get(url).json()
        seen += page["results"]
        url = page["next"]
    assert {found["id"] for found in seen} == {str(row.pk) for row in rows}
    assert (len(seen), seen[-1]["response"]) == (4, {"ok": True})
    answered = caller.get(LIST, state="answered", name="reboot").json()["results"]
    assert [found["id"] for found in answered] == [str(rows[-1].pk)]
    assert caller.get(LIST, state="flying").status_code == 400
    assert caller.get(LIST, attempts=1).status_code == 400


def test_a_list_takes_as_many_queries_for_100_rows_as_for_10(caller):
    """At most 12."""
    counts = []
    for more in (10, 110):
        DeviceCommand.objects.bulk_create(
            DeviceCommand(device_key=KEY, name="reboot", response={"ok": True}) for _ in range(more)
        )
        caller.get(LIST)
        with CaptureQueriesContext(connection) as queries:
            assert len(caller.get(LIST, limit=1000).json()["results"]) >= more
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_a_device_reads_its_own_commands_and_no_more(north):
    """It sends and cancels none, and those of other devices do not exist for it."""
    own = provision("NORTH-2", site="north")
    row = stored(device_key="weatherstation/NORTH-2")
    device, mine = Program(own.api_key), LIST.replace("NORTH-1", "NORTH-2")
    assert [found["id"] for found in device.get(mine).json()["results"]] == [str(row.pk)]
    assert device.get(f"{mine}{row.pk}/").json()["name"] == "reboot"
    assert device.post(mine, SET).status_code == 403
    assert device.delete(f"{mine}{row.pk}/").status_code == 403
    assert device.get(LIST).status_code == 404
    assert device.get(f"{LIST}{row.pk}/").status_code == 404


def test_foreign_devices_and_commands_are_not_found(north):
    """A person of another site, an unknown type, an unknown device, and a command of another device."""
    row = stored()
    south = program(person("sue", sites=["south"]))
    ada = program(person("ada"))
    WeatherStationDevice.objects.create(device_id="NORTH-2", site="north")
    for answer in (
        south.get(LIST),
        south.post(LIST, SET),
        south.delete(f"{LIST}{row.pk}/"),
        ada.get(LIST.replace("weatherstation", "kite")),
        ada.get(LIST.replace("NORTH-1", "a%00b")),
        ada.get(f"{LIST.replace('NORTH-1', 'NORTH-2')}{row.pk}/"),
        ada.get(f"{LIST}{uuid.uuid4()}/"),
        ada.get(f"{LIST}7/"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
    row.refresh_from_db()
    assert row.state == "queued"


def test_a_viewer_sends_and_cancels_nothing(north):
    """They read; the rest is 403, as it is with a key that lacks the scope."""
    row = stored()
    viewer = program(person("vera", roles.VIEWER))
    reader = program(person("ada"), ["devices:read"])
    writer = program(person("oda", roles.OPERATOR), ["commands:write"])
    for one in (viewer, reader):
        assert one.get(LIST).status_code == 200
        assert one.post(LIST, SET).status_code == 403
        assert one.delete(f"{LIST}{row.pk}/").status_code == 403
    assert writer.get(LIST).status_code == 403
    assert writer.post(LIST, SET).status_code == 202
    assert writer.delete(f"{LIST}{row.pk}/").status_code == 200
