"""Messages in quarantine, as programs read and replay them."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.models import AuditEntry
from devicehub import roles
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.cast import provision
from rig.programs import Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

LIST = "/api/quarantine/"
TOPIC = "things/weatherstation/NORTH-1/data"
KEY = "weatherstation/NORTH-1"


@pytest.fixture
def caller():
    """Return a program of an administrator."""
    return program(person("ada"))


def quarantined(payload=b'{"temperature": 5}', topic=TOPIC):
    """Quarantine a message."""
    pipeline([Message(topic, payload, timezone.now() - timedelta(hours=3))])
    return QuarantinedMessage.objects.latest("pk")


def row_of(**fields):
    """Store a row with *fields* in place of its own."""
    defaults = {"reason": "not_json", "topic": TOPIC, "payload": b"{", "device_key": KEY}
    return QuarantinedMessage.objects.create(**(defaults | {"received_at": timezone.now()} | fields))


def north(**fields):
    """Store the device."""
    return WeatherStationDevice.objects.create(device_id="NORTH-1", site="north", **fields)


def test_a_message_has_its_reason_and_its_payload(caller):
    """The payload is in the answer of one message, as text or as base64; the list has its size."""
    text = quarantined("{ö".encode())
    raw = row_of(payload=b"\x00\xff\xfe", user_properties={"trace": "7"}, size=None)
    found = caller.get(f"{LIST}{text.pk}/").json()
    assert (found["reason"], found["device"], found["topic"]) == ("unknown_device", KEY, TOPIC)
    assert found["detail"] == f"there is no {KEY}"
    assert (found["payload"], found["payload_base64"], found["size"]) == ("{ö", None, 3)
    assert (found["replayed_at"], found["dismissed_at"]) == (None, None)
    found = caller.get(f"{LIST}{raw.pk}/").json()
    assert (found["payload"], found["payload_base64"], found["size"]) == (None, "AP/+", 3)
    assert found["user_properties"] == {"trace": "7"}
    listed = caller.get(LIST).json()["results"]
    assert [(row["id"], row["size"]) for row in listed] == [(raw.pk, 3), (text.pk, 3)]
    assert "payload" not in listed[0]
    assert caller.get(f"{LIST}{raw.pk}/", fields="payload_base64").json() == {"payload_base64": "AP/+"}


def test_a_message_is_replayed_once(caller):
    """The second time is 409; the audit names the program."""
    row = quarantined()
    north()
    answer = caller.post(f"{LIST}{row.pk}/replay/")
    assert answer.status_code == 200
    assert answer.json() == {"id": row.pk, "outcome": "stored", "reason": None, "detail": ""}
    reading = WeatherStationReading.objects.get()
    assert (reading.temperature, reading.timestamp) == (5.0, row.received_at)
    assert caller.get(f"{LIST}{row.pk}/").json()["replayed_at"] is not None
    again = caller.post(f"{LIST}{row.pk}/replay/")
    assert (again.status_code, again.json()["detail"]) == (409, "The message was replayed already.")
    assert AuditEntry.objects.get(action="quarantine_replayed").actor_kind == "key"


def test_a_message_that_fails_again_says_why(caller):
    """It stays as it is, and no second row is added."""
    row = quarantined()
    north(is_active=False)
    answer = caller.post(f"{LIST}{row.pk}/replay/")
    assert answer.status_code == 200
    assert answer.json() == {
        "id": row.pk,
        "outcome": "failed",
        "reason": "disabled_device",
        "detail": f"{KEY} is disabled",
    }
    assert QuarantinedMessage.objects.get().replayed_at is None


def test_a_dismissed_message_is_replayed(caller):
    """Its number names it, as on the page of the message."""
    row = quarantined()
    QuarantinedMessage.objects.update(dismissed_at=timezone.now())
    north()
    assert caller.post(f"{LIST}{row.pk}/replay/").json()["outcome"] == "stored"


def test_the_list_is_filtered_and_comes_in_pages(caller):
    """The latest is first."""
    now = timezone.now()
    rows = [row_of(received_at=now - timedelta(hours=hours)) for hours in (0, 1, 1, 2)]
    other = row_of(reason="unknown_topic", device_key="", topic="x", received_at=now - timedelta(hours=9))

    def found(**params):
        return [row["id"] for row in caller.get(LIST, **params).json()["results"]]

    first = caller.get(LIST, limit=3, fields="id").json()
    second = caller.get(first["next"]).json()
    assert [row["id"] for row in first["results"]] == [rows[0].pk, rows[2].pk, rows[1].pk]
    assert [row["id"] for row in second["results"]] == [rows[3].pk, other.pk]
    assert found(reason="unknown_topic") == [other.pk]
    assert len(found(device=KEY)) == 4
    assert found(**{"from": (now - timedelta(minutes=5)).isoformat()}) == [rows[0].pk]
    assert found(to=(now - timedelta(hours=3)).isoformat()) == [other.pk]


@pytest.mark.parametrize(
    "params",
    [
        {"reason": "bad_luck"},
        {"to": "12:00"},
        {"replayed": "true"},
        {"device": "\x00"},
        {"fields": "payload"},
    ],
)
def test_a_wrong_parameter_is_refused(caller, params):
    """It is 400."""
    assert caller.get(LIST, **params).status_code == 400


def test_a_list_takes_as_many_queries_for_100_rows_as_for_10(caller):
    """At most 12, and the payloads are not read."""
    counts = []
    for more in (10, 100):
        QuarantinedMessage.objects.bulk_create(
            QuarantinedMessage(reason="not_json", topic=TOPIC, payload=b"{", received_at=timezone.now())
            for _ in range(more)
        )
        caller.get(LIST)
        with CaptureQueriesContext(connection) as queries:
            assert len(caller.get(LIST, limit=1000).json()["results"]) >= more
        assert not any('"payload",' in query["sql"] for query in queries)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_people_with_a_limit_see_and_replay_those_of_their_devices():
    """A message without a device belongs to no site."""
    north()
    row, nameless = row_of(payload=b'{"temperature": 5}'), row_of(device_key="", topic="x")
    southern = program(person("sue", sites=["south"]))
    assert southern.get(LIST).json()["results"] == []
    assert southern.get(f"{LIST}{row.pk}/").status_code == 404
    assert southern.post(f"{LIST}{row.pk}/replay/").status_code == 404
    assert not WeatherStationReading.objects.exists()
    northern = program(person("nora", sites=["north"]))
    assert [found["id"] for found in northern.get(LIST).json()["results"]] == [row.pk]
    assert northern.post(f"{LIST}{nameless.pk}/replay/").status_code == 404
    assert northern.post(f"{LIST}{row.pk}/replay/").json()["outcome"] == "stored"


def test_a_viewer_and_a_device_replay_nothing():
    """A viewer reads; a key without the scope and a device do neither."""
    row = row_of()
    viewer = program(person("vera", roles.VIEWER))
    assert viewer.get(f"{LIST}{row.pk}/").status_code == 200
    assert viewer.post(f"{LIST}{row.pk}/replay/").status_code == 403
    reader = program(person("ada"), ["telemetry:read"])
    assert reader.get(LIST).status_code == 200
    assert reader.post(f"{LIST}{row.pk}/replay/").status_code == 403
    writer = program(person("oda", roles.OPERATOR), ["devices:write"])
    assert writer.get(LIST).status_code == 403
    assert writer.post(f"{LIST}{row.pk}/replay/").json()["reason"] == "unknown_device"
    device = Program(provision("NORTH-2").api_key)
    assert device.get(LIST).status_code == 403
    assert device.post(f"{LIST}{row.pk}/replay/").status_code == 403


@pytest.mark.parametrize("number", ["0", "99999999999999999999999"])
def test_an_unknown_number_is_not_found(caller, number):
    """A number beyond 64 bits is like any other."""
    assert caller.get(f"{LIST}{number}/").status_code == 404
    assert caller.post(f"{LIST}{number}/replay/").status_code == 404
