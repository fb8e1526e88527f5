"""The readings that a device posts: its own only, any form of MQTT, the outcomes of the pipeline."""

from datetime import timedelta

import cbor2
import pytest
from django.db import OperationalError
from django.utils import timezone

from authsvc import caches
from devicehub.ingest import limits, posted
from devicehub.messages.message import MAX_KEPT
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from rig.programs import PROBLEM, Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

PATH = "/api/devices/weatherstation/STATION-001/readings/"


def device(device_id):
    """Return a device and the program with its key."""
    made = WeatherStationDevice(device_id=device_id, site="north")
    key = made.generate_credentials()["api_key"]
    made.save()
    return made, Program(key)


@pytest.fixture
def station():
    """Return our station and its program."""
    return device("STATION-001")


@pytest.fixture
def storing(monkeypatch):
    """Have a thread of this test alone store the posts, and end it."""
    own = posted.Storing()
    monkeypatch.setattr(posted, "_storing", own)
    yield own
    own.stop()


@pytest.fixture
def post(station):
    """Return a function that posts a body as the station."""

    def send(body, content_type="application/json", path=PATH):
        own = station[1]
        return own.client.post(path, body, content_type=content_type, headers=own._headers)

    return send


def test_a_device_posts_a_reading(post, station):
    """It is stored as over MQTT: a reading, a message on the data topic, and a device that is connected."""
    answer = post({"temperature": 21.5})
    assert answer.status_code == 202
    assert answer.json() == {
        "outcome": "stored",
        "notes": [],
        "reason": None,
        "detail": "",
        "quarantined": False,
    }
    assert WeatherStationReading.objects.get().temperature == 21.5
    assert WeatherStationMessage.objects.get().topic == "things/weatherstation/STATION-001/data"
    row = WeatherStationDevice.objects.get()
    assert row.connected
    assert row.last_message_at is not None
    assert row.last_reading_at is not None


def test_many_samples_of_one_body(post):
    """An array of flat objects is one message with many readings, and its repetition is a duplicate."""
    start = timezone.now() - timedelta(hours=1)
    body = [
        {"temperature": 20 + i / 10, "timestamp": (start + timedelta(seconds=i)).isoformat()}
        for i in range(100)
    ]
    assert [post(body).json()["outcome"] for _ in range(2)] == ["stored", "duplicate"]
    assert WeatherStationReading.objects.count() == 100


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/cbor", cbor2.dumps({"temperature": 21.5})),
        ("application/senml+json", b'[{"n":"temperature","u":"Cel","v":21.5}]'),
        ("application/senml+cbor", cbor2.dumps([{0: "temperature", 2: 21.5}])),
        ("text/plain; charset=utf-8", b'{"temperature": 21.5}'),
        ("application/x-www-form-urlencoded", b'{"temperature": 21.5}'),
        ("multipart/form-data; boundary=x", cbor2.dumps({"temperature": 21.5})),
        ("a/b/c; charset*=x", b'{"temperature": 21.5}'),
    ],
)
def test_any_form_of_a_payload(post, content_type, body):
    """The type names the form; of any other type the form is recognised."""
    answer = post(body, content_type)
    assert (answer.status_code, answer.json()["outcome"]) == (202, "stored")
    assert WeatherStationReading.objects.get().temperature == 21.5


def test_notes_name_the_values_that_were_left_out(post):
    """A message with one good value is partial."""
    found = post({"temperature": 21.5, "colour": "red"}).json()
    assert found["outcome"] == "partial"
    assert "colour" in found["notes"][0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"\x00\xff", "not_json"),
        (b"[]", "no_value"),
        (b'{"temperature": 1e999}', "no_value"),
    ],
)
def test_a_message_that_fails_is_kept(post, body, reason):
    """It is answered with 202 and the reason, and is in the quarantine."""
    answer = post(body)
    found = answer.json()
    assert (answer.status_code, found["outcome"], found["reason"]) == (202, "failed", reason)
    assert found["quarantined"]
    assert found["detail"]
    assert QuarantinedMessage.objects.get().device_key == "weatherstation/STATION-001"


def test_a_body_beyond_a_mebibyte_is_refused(post):
    """It does not become a message; one of exactly a mebibyte does."""
    answer = post(b" " * (MAX_KEPT + 1))
    assert (answer.status_code, answer["Content-Type"]) == (413, PROBLEM)
    assert not QuarantinedMessage.objects.exists()
    assert post(b" " * MAX_KEPT).json()["reason"] == "not_json"


@pytest.mark.django_db(transaction=True)
def test_beyond_the_rate_limit_a_device_waits(post, settings, storing):
    """The answer says how long, and the message is in the quarantine as over MQTT."""
    settings.DEVICEHUB_RATE_LIMIT = "2/m"
    caches.clear_caches()
    limits.limiter.clear()
    answers = [post({"temperature": number}) for number in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert 1 <= int(answers[2]["Retry-After"]) <= 60
    assert answers[2].json()["type"] == "/problems/too-many-requests"
    assert "2 messages in 60 s" in answers[2].json()["detail"]
    assert QuarantinedMessage.objects.get().reason == "rate_limited"


def test_another_device_is_not_found(post):
    """Neither one that exists, nor an unknown one, nor one of another type or spelling."""
    device("STATION-002")
    for path in (
        "weatherstation/STATION-002",
        "weatherstation/STATION-003",
        "envsensor/STATION-001",
        "nothing/STATION-001",
        "weatherstation/station-001",
        "weatherstation/a%00b",
    ):
        answer = post({"temperature": 21.5}, path=f"/api/devices/{path}/readings/")
        assert (answer.status_code, answer["Content-Type"]) == (404, PROBLEM)
    assert not WeatherStationMessage.objects.exists()


def test_people_and_their_programs_may_not(station):
    """Not even administrators: the data of a device is its own."""
    ada = person("ada")
    for caller in (program(ada), Program(user=ada)):
        answer = caller.post(PATH, {"temperature": 21.5})
        assert (answer.status_code, answer["Content-Type"]) == (403, PROBLEM)
    assert Program().post(PATH, {"temperature": 21.5}).status_code == 401


def test_a_disabled_device_is_refused(post, station):
    """Its key is not valid any more."""
    WeatherStationDevice.objects.update(is_active=False)
    assert post({"temperature": 21.5}).status_code == 401


def test_a_database_that_cannot_store_is_answered_with_503(post, monkeypatch):
    """The device may send it again."""

    def fail(*_, **__):
        raise OperationalError("database is locked")

    monkeypatch.setattr(posted, "pipeline", fail)
    answer = post({"temperature": 21.5})
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert answer["Content-Type"] == PROBLEM


def test_a_post_whose_outcome_is_not_known_in_time_is_answered_with_503(post, monkeypatch):
    """The answer says that the message may be stored, and when to send it again."""

    def hang(_):
        raise posted.UnknownOutcome

    monkeypatch.setattr(posted, "store", hang)
    answer = post({"temperature": 21.5})
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert "The message may be stored" in answer.json()["detail"]


def test_a_post_needs_few_queries(post, django_assert_max_num_queries):
    """As many for a hundred samples as for one."""
    with django_assert_max_num_queries(12):
        post({"temperature": 21.5})
    with django_assert_max_num_queries(12):
        post([{"temperature": 21.5, "timestamp": 1_790_000_000 + number} for number in range(100)])
