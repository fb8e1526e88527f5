"""The rate limit of each device: off by default, even over time, and without effect on other devices."""

from datetime import UTC, datetime

import pytest
from django.core.checks import run_checks
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from devicehub import provisioning
from devicehub.conf import RateLimit, rate_limit
from devicehub.ingest import limits
from devicehub.ingest.limits import Limiter, OwnLimits, limiter
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message, Outcome
from devicehub.models import DeviceOptions, QuarantinedMessage
from fleet.models import WeatherStationDevice

STORED, FAILED, DUPLICATE = Outcome.STORED, Outcome.FAILED, Outcome.DUPLICATE
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def fresh():
    limiter.clear()
    yield
    limiter.clear()


@pytest.fixture
def station(transactional_db):
    return WeatherStationDevice.objects.create(device_id="STATION-001")


@pytest.fixture
def neighbour(transactional_db):
    return WeatherStationDevice.objects.create(device_id="STATION-002")


def message(device, number=1, *, timestamp=""):
    body = f'{{"temperature": {number}{timestamp}}}'.encode()
    return Message(f"things/weatherstation/{device.device_id}/data", body, NOW)


@pytest.mark.parametrize(
    ("text", "limit"),
    [("10/s", (10, 1)), ("600/m", (600, 60)), ("5000/h", (5000, 3600)), ("", None)],
)
def test_a_rate_is_read_as_people_write_it(text, limit):
    assert rate_limit(text) == limit


@pytest.mark.parametrize("text", ["0/s", "10", "10/d", "-1/s", "1.5/s", "10/s ", "a/s"])
def test_a_text_that_is_not_a_rate_is_a_system_check(settings, text):
    settings.DEVICEHUB_RATE_LIMIT = text

    [found] = [check for check in run_checks() if check.id == "devicehub.E009"]

    assert repr(text) in found.msg


def test_without_a_limit_everything_is_stored(station):
    assert pipeline([message(station, number) for number in range(50)]) == [STORED] * 50


def test_beyond_the_limit_a_message_waits_in_the_quarantine(station, settings):
    settings.DEVICEHUB_RATE_LIMIT = "3/h"

    outcomes = pipeline([message(station, number) for number in range(5)])

    assert outcomes == [STORED] * 3 + [FAILED] * 2
    assert set(QuarantinedMessage.objects.values_list("reason", "detail")) == {
        ("rate_limited", "more than 3 messages in 3600 s")
    }
    assert station.readings.count() == 3


def test_a_neighbour_is_not_limited_by_it(station, neighbour, settings):
    settings.DEVICEHUB_RATE_LIMIT = "1/h"

    assert pipeline([message(station), message(station), message(neighbour)]) == [STORED, FAILED, STORED]


def test_what_fails_counts_too(station, settings):
    settings.DEVICEHUB_RATE_LIMIT = "2/h"
    junk = Message(message(station).topic, b"junk", NOW)

    assert pipeline([junk, junk, message(station)]) == [FAILED] * 3
    assert sorted(QuarantinedMessage.objects.values_list("reason", flat=True)) == [
        *("not_json", "not_json", "rate_limited")
    ]


def test_a_duplicate_does_not_count(station, settings):
    settings.DEVICEHUB_RATE_LIMIT = "2/h"
    timed = message(station, timestamp=f', "timestamp": {NOW.timestamp():.0f}')

    assert pipeline([timed, timed, timed, message(station)]) == [STORED, DUPLICATE, DUPLICATE, STORED]


def test_over_the_limit_a_duplicate_stays_one(station, settings):
    """A message that is sent again because its ack was lost is stored already."""
    settings.DEVICEHUB_RATE_LIMIT = "1/h"
    timed = message(station, timestamp=f', "timestamp": {NOW.timestamp():.0f}')
    pipeline([timed])

    assert pipeline([timed]) == [DUPLICATE]


def test_a_device_may_have_a_limit_of_its_own(station, neighbour, settings):
    provisioning.set_options("weatherstation/STATION-001", rate_limit="1/h")
    assert pipeline([message(station, n) for n in range(3)]) == [STORED, FAILED, FAILED]
    assert pipeline([message(neighbour, n) for n in range(3)]) == [STORED] * 3

    settings.DEVICEHUB_RATE_LIMIT = "2/h"
    assert pipeline([message(neighbour, n) for n in range(3)]) == [STORED, STORED, FAILED]
    assert pipeline([message(station)]) == [FAILED]


def test_limits_of_single_devices_are_read_seldom(station, django_assert_num_queries):
    provisioning.set_options("weatherstation/STATION-001", rate_limit="1/h")
    DeviceOptions.objects.create(device_key="weatherstation/BY-SQL", rate_limit="often")
    limits = OwnLimits()
    with django_assert_num_queries(1):
        assert limits.read(now=0) == {"weatherstation/STATION-001": (1, 3600)}
        limits.read(now=9.9)
    with django_assert_num_queries(1):
        limits.read(now=10)


@pytest.mark.django_db(transaction=True)
def test_what_was_not_committed_does_not_count():
    one = Limiter()
    with transaction.atomic():
        assert one.beyond(RateLimit(1, 60), ["a", "a"], now=0) == [1]
        transaction.set_rollback(True)

    with transaction.atomic():
        assert one.beyond(RateLimit(1, 60), ["a"], now=0) == []


@pytest.mark.django_db(transaction=True)
def test_the_allowance_comes_back_evenly():
    one, limit = Limiter(), RateLimit(6, 60)
    with transaction.atomic():
        assert one.beyond(limit, ["a"] * 7, now=0) == [6]

    with transaction.atomic():
        assert one.beyond(limit, ["a"] * 3, now=20) == [2]


@pytest.mark.django_db(transaction=True)
def test_it_counts_a_bounded_number_of_devices(monkeypatch):
    monkeypatch.setattr(limits, "MOST_COUNTED", 10)
    one, limit = Limiter(), RateLimit(1, 60)
    with transaction.atomic():
        one.beyond(limit, [str(number) for number in range(30)], now=0)

    assert len(one._used) == 10


@pytest.mark.django_db(transaction=True)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 90)), max_size=60), st.integers(1, 5))
def test_no_device_gets_more_than_twice_its_rate_in_any_period(asked, messages):
    """It gets its whole allowance at once and the part that comes back meanwhile; never less than its rate."""
    one, limit, accepted = Limiter(), RateLimit(messages, 30), []
    for key, at in sorted(asked, key=lambda pair: pair[1]):
        with transaction.atomic():
            if not one.beyond(limit, [key], now=at):
                accepted.append((key, at))

    for key, start in accepted:
        within = [1 for other, at in accepted if other == key and start <= at < start + 30]
        assert len(within) <= 2 * messages
