"""Messages of a device, as programs read them."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub import roles
from devicehub.api import heavy_pages
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice, WeatherStationMessage
from rig.cast import provision
from rig.programs import Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

LIST = "/api/devices/weatherstation/NORTH-1/messages/"
TOPIC = "things/weatherstation/NORTH-1/data"


@pytest.fixture
def north():
    """Return a device at the site north."""
    return WeatherStationDevice.objects.create(device_id="NORTH-1", site="north")


@pytest.fixture
def caller(north):
    """Return a program of an administrator."""
    return program(person("ada"))


def arrive(*payloads, content_type=""):
    """Ingest *payloads* of the device."""
    now = timezone.now()
    pipeline([Message(TOPIC, payload, now, content_type=content_type) for payload in payloads])


def test_each_message_has_its_outcome_and_payload(caller):
    """A failed one names its row in the quarantine, which holds the bytes."""
    big = 2**63 - 1
    arrive(b'{"temperature": 5, "humidity": "wet"}', b"\xff\xfe", b'{"temperature": 6, "x": %d}' % big)
    last, failed, first = caller.get(LIST).json()["results"]
    assert first["outcome"] == "partial"
    assert first["payload_json"] == {"temperature": 5, "humidity": "wet"}
    assert len(first["notes"]) == 1
    assert (failed["outcome"], failed["processing_status"]) == ("failed", "failed")
    assert failed["error"].startswith("not_json")
    assert failed["quarantine_id"] == QuarantinedMessage.objects.get().pk
    assert (failed["payload_json"], failed["payload_base64"]) == (None, None)
    assert last["payload_json"]["x"] == big
    assert last["topic"] == TOPIC
    assert last["received_at"].endswith("Z")


def test_bytes_come_as_base64(caller, north):
    """They are not in the member for JSON."""
    WeatherStationMessage.objects.create(device=north, topic=TOPIC, payload_raw=b"\x00\xff")
    (found,) = caller.get(LIST, fields="payload_base64,payload_json,outcome").json()["results"]
    assert found == {"payload_base64": "AP8=", "payload_json": None, "outcome": ""}


def test_the_list_is_filtered_and_comes_in_pages(caller, north):
    """The newest is first; other devices have lists of their own."""
    other = WeatherStationDevice.objects.create(device_id="NORTH-2")
    WeatherStationMessage.objects.create(device=other, topic=TOPIC)
    for outcome in ("stored", "failed", "stored"):
        WeatherStationMessage.objects.create(device=north, topic=TOPIC, outcome=outcome)
    middle = WeatherStationMessage.objects.filter(device=north).order_by("pk")[1].received_at
    first = caller.get(LIST, limit=2).json()
    second = caller.get(first["next"]).json()
    assert [len(page["results"]) for page in (first, second)] == [2, 1]
    assert first["results"][0]["id"] > first["results"][1]["id"] > second["results"][0]["id"]

    def found(**params):
        return [row["outcome"] for row in caller.get(LIST, **params).json()["results"]]

    assert found(outcome="failed") == ["failed"]
    assert found(processing_status="pending") == ["stored", "failed", "stored"]
    assert found(**{"from": middle.isoformat()}) == ["stored", "failed"]
    assert found(to=middle.isoformat(), outcome="stored") == ["stored"]


@pytest.mark.parametrize(
    "params",
    [
        {"outcome": "lost"},
        {"from": "yesterday"},
        {"from": "2026-12-01T06:00:00"},
        {"to": "0001-01-01T00:00:00+23:00"},
        {"limit": 101},
        {"topic": TOPIC},
        {"fields": "digest"},
        {"cursor": "WzAsOTk5OTk5OTk5OTk5OTk5OTk5OTld"},
    ],
)
def test_a_wrong_parameter_is_refused(caller, params):
    """It is 400."""
    assert caller.get(LIST, **params).status_code == 400


def test_a_list_takes_as_many_queries_for_100_rows_as_for_10(caller, north):
    """At most 12."""
    counts = []
    for more in (10, 90):
        WeatherStationMessage.objects.bulk_create(
            WeatherStationMessage(
                device=north, topic=TOPIC, outcome="failed", processing_error=f"x (quarantined as {number})"
            )
            for number in range(more)
        )
        caller.get(LIST)
        with CaptureQueriesContext(connection) as queries:
            assert len(caller.get(LIST, limit=100).json()["results"]) >= more
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_they_are_for_people_who_may_see_them(north):
    """Another site is 404; a missing scope or permission and a device is 403."""
    assert program(person("vera", roles.VIEWER)).get(LIST).status_code == 200
    assert program(person("sue", sites=["south"])).get(LIST).status_code == 404
    assert program(person("oda"), ["devices:read"]).get(LIST).status_code == 403
    assert program(person("ned", "")).get(LIST).status_code == 403
    own = provision("NORTH-2")
    assert Program(own.api_key).get(LIST.replace("NORTH-1", "NORTH-2")).status_code == 403
    assert Program().get(LIST).status_code == 401


def test_a_page_of_heavy_messages_ends_early(caller, monkeypatch):
    """Payloads are weighed before they are read, in both directions; without them the page is whole."""
    monkeypatch.setattr(heavy_pages, "HEAVIEST", 250)
    arrive(*(b'{"temperature": %d, "x": "%s"}' % (n, b"y" * 70) for n in range(5)))
    first = caller.get(LIST, limit=4).json()
    second = caller.get(first["next"]).json()
    back = caller.get(second["previous"]).json()
    assert [
        [row["payload_json"]["temperature"] for row in page["results"]] for page in (first, second, back)
    ] == [
        [4, 3],
        [2, 1],
        [4, 3],
    ]
    monkeypatch.setattr(heavy_pages, "HEAVIEST", 1)
    assert len(caller.get(LIST).json()["results"]) == 1
    assert len(caller.get(LIST, fields="id,outcome").json()["results"]) == 5
