"""Simulated endpoints: their messages are registrations and SenML that ingest stores."""

import json
import time
from types import SimpleNamespace

import pytest
from django.utils import timezone

from devicehub.kinds.registry import registry
from devicehub.lwm2m import simulated
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, Event, Resource
from devicehub.lwm2m.simulated import ASLEEP, SimulatedEndpoint
from devicehub.simulation.device import SimulatedDevice, Totals, class_of
from devicehub.simulation.faults import Faults
from devicehub.simulation.logins import Login
from fleet.models import WeatherStationDevice
from rig.messages import STORED, fresh, send


class Wire:
    """A client that is connected and keeps what is published."""

    ready = True

    def __init__(self):
        self.sent = []

    def publish(self, message):
        self.sent.append((message.topic.rpartition("/")[2], json.loads(message.payload)))
        return True


def endpoint(device_id, **faults):
    made = SimulatedEndpoint(
        KIND,
        Login(device_id, device_id, "secret"),
        Totals(),
        Faults(seed=1, **faults),
        history=30,
        complain=lambda *_: None,
        arrived=lambda _: None,
    )
    made.client = Wire()
    made.ready()
    return made


@pytest.fixture
def ticking(monkeypatch):
    """Have the clock of simulated devices go on by a second with each look at it."""
    began, seconds = time.time() - 100, iter(range(100))
    monkeypatch.setattr(time, "time", lambda: began + next(seconds))


def outcomes(row, made):
    """Ingest the messages of an endpoint, and return the outcome of each."""
    now = timezone.now()
    return [send(row, content, about, at=now) for about, content in made.client.sent]


def test_the_class_is_that_of_the_kind():
    assert class_of(KIND) is SimulatedEndpoint
    assert class_of(registry.of(WeatherStationDevice)) is SimulatedDevice


@pytest.mark.django_db
def test_an_endpoint_registers_sends_and_deregisters(ticking):
    made = endpoint("ENDPOINT-001")
    row = Endpoint.objects.create(device_id="ENDPOINT-001")
    made.turn()
    made.turn()
    made.leave()

    assert outcomes(row, made) == [STORED] * 6
    first, *_, last = made.client.sent
    assert first[0] == last[0] == "status"
    assert first[1]["registration"]["binding"] == "U"
    assert last[1] == {"deregistration": True}
    now = fresh(row)
    assert (now.registered, now.lwm2m_version, now.lifetime) == (False, "1.1", simulated.LIFETIME)
    assert now.object_versions == {"3": "1.1", "3303": "1.1", "3304": "1.1"}
    stored = Resource.objects.filter(device=row)
    assert {one.type for one in stored.filter(resource_id=5700)} == {"Float"}
    assert not stored.filter(resource_type=None).exists()
    temperature = stored.get(path="3303/0/5700").value
    assert stored.get(path="3303/0/5601").value <= temperature <= stored.get(path="3303/0/5602").value
    assert stored.get(path="3/0/9").type == "Integer"
    assert set(Event.objects.values_list("detail", flat=True)) == {"", "registered", "deregistered"}


@pytest.mark.django_db
def test_an_endpoint_in_queue_mode_sleeps_between_its_messages(ticking):
    made = endpoint("ENDPOINT-002")
    row = Endpoint.objects.create(device_id="ENDPOINT-002")
    for _ in range(ASLEEP - 1):
        made.turn()
    before = len(made.client.sent)
    assert before == 3  # The registration, the facts and the history.
    made.turn()

    (about, samples), (_, says) = made.client.sent[before:]
    assert (about, says) == ("data", {"awake": False})
    assert len({record["t"] for record in samples}) == ASLEEP
    assert outcomes(row, made) == [STORED] * 5
    now = fresh(row)
    assert (now.registered, now.queue_mode, now.sleeping) == (True, True, True)


def test_a_connection_that_was_lost_registers_again(monkeypatch):
    made = endpoint("ENDPOINT-001")
    made.turn()
    made.ready()
    made.turn()
    assert sum("registration" in content for about, content in made.client.sent if about == "status") == 2

    later = time.monotonic() + 10_000
    monkeypatch.setattr(time, "monotonic", lambda: later)
    made.turn()
    assert {"update": {"lifetime": simulated.LIFETIME}} in [content for _, content in made.client.sent]


def test_bad_payloads_are_counted_by_their_kind(monkeypatch):
    made = endpoint("ENDPOINT-001", bad_payloads=100)
    made.client = SimpleNamespace(ready=True, publish=lambda _: True)
    for _ in range(20):
        made.turn()
    assert made._tally.bad_payloads == 20
