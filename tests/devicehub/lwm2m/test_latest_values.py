"""The latest value of a resource among several of one message, of one batch, and of one time."""

import pytest

from devicehub.ingest.pipeline import pipeline
from devicehub.lwm2m.inbox import inbox
from devicehub.lwm2m.models import Endpoint, Resource, ResourceValue
from rig.messages import FAILED, NOW, STORED, message, message_row, send

pytestmark = pytest.mark.django_db
PATH = "/3303/0/5700"


@pytest.fixture
def endpoint():
    return Endpoint.objects.create(device_id="urn:dev:a")


def sample(value, ago=0):
    return {"n": PATH, "v": value, "t": NOW.timestamp() - ago}


def latest():
    return Resource.objects.get().value


@pytest.mark.parametrize("order", [(3, 1, 2), (1, 2, 3), (2, 3, 1)])
def test_the_newest_sample_of_a_message_is_the_latest_value(endpoint, order):
    assert send(endpoint, [sample(ago, ago) for ago in order]) == STORED

    assert (latest(), ResourceValue.objects.count()) == (1, 3)


@pytest.mark.parametrize("together", [True, False])
def test_of_two_values_of_one_time_the_later_message_counts(endpoint, together):
    messages = [message(endpoint, [sample(value)]) for value in (1, 2)]
    for batch in [messages] if together else [[one] for one in messages]:
        assert set(pipeline(batch)) == {STORED}

    assert latest() == 2


def test_a_message_with_too_many_values_is_refused_as_a_whole(endpoint, monkeypatch):
    monkeypatch.setattr(inbox, "MOST_RESOURCES", 3)
    pack = [{"n": f"/3303/{number}/5700", "v": 1} for number in range(4)]

    assert send(endpoint, pack) == FAILED
    assert message_row(endpoint).quarantined.reason == "too_many_samples"
    assert send(endpoint, pack[:3]) == STORED


def test_a_message_with_too_many_times_is_refused_as_a_whole(endpoint, settings):
    settings.DEVICEHUB_MAX_SAMPLES = 2
    assert send(endpoint, [sample(1, ago) for ago in range(3)]) == FAILED
    assert message_row(endpoint).quarantined.reason == "too_many_samples"

    assert send(endpoint, [sample(1), sample(2, 1)]) == STORED
    assert send(endpoint, [{"n": f"/3303/{number}/5700", "v": 1} for number in range(3)]) == STORED
