"""Real servers and clients of Leshan: the library 2.0.0-M15 on both sides, and the demo server 2.0.0-M4.

Without Java or Maven Central these tests do not run, and the last line of the run names them; test_follower.py then
replays what was recorded.
"""

import time

import pytest

from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.leshan.storing import Storing
from devicehub.lwm2m.models import Endpoint, Resource, ResourceValue
from devicehub.lwm2m.names import device_ids
from devicehub.messages.message import Outcome
from rig.hub import eventually
from rig.leshan import jars
from rig.leshan.following import Following
from rig.leshan.jars import NoRealLeshan
from rig.leshan.peers import DemoServer, Server, client

pytestmark = [pytest.mark.servers, pytest.mark.sqlite_only]

NAME = "urn:dev:a"
PATIENCE = 60


def await_for(probe):
    assert eventually(probe, PATIENCE), "it did not happen in time"


@pytest.fixture(scope="module")
def real():
    try:
        jars.classpath()
    except NoRealLeshan as missing:
        pytest.skip(str(missing))


@pytest.fixture
def run(real, tmp_path):
    """Return the function that starts a server; it is stopped after the test."""
    started = []

    def start(kind=Server, **options):
        try:
            server = kind(tmp_path, **options)
        except NoRealLeshan as missing:
            pytest.skip(str(missing))
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def follow():
    """Return the function that starts a follower; it is stopped after the test."""
    started = []

    def start(server, *wishes):
        one = Following(server.url, *wishes)
        started.append(one)
        await_for(lambda: one.lines)
        return one

    yield start
    for one in started:
        one.stop()


@pytest.mark.django_db
def test_an_endpoint_is_observed_and_its_values_are_stored(run, follow, tmp_path):
    """The server has no definition of humidity, so it shows the raw bytes of the number."""
    endpoint = Endpoint.objects.create(device_id=NAME)
    server = run()
    with client(tmp_path / "client", NAME, server.port, lifetime=120) as peer:
        one = follow(server, "3303/*/5700", "3304/*/5700")
        await_for(lambda: one.values(NAME, "/3304/0/5700"))
        peer.tell("temperature 21.5")
        await_for(lambda: one.values(NAME) == ["20.0", "21.5"])
        peer.tell("humidity 41.5")
        await_for(lambda: len(one.values(NAME, "/3304/0/5700")) == 2)
        peer.tell("send")
        await_for(lambda: "send" in one.of(NAME))
        peer.tell("quit")
        await_for(lambda: one.of(NAME)[-1] == "deregistration")
    one.stop()

    storing = Storing(KIND, device_ids, lambda batch: None, lambda: False)
    storing(one.reports[:-1])

    assert storing.outcomes == {Outcome.STORED: len(one.reports) - 1}
    endpoint.refresh_from_db()
    assert (endpoint.registered, endpoint.status, endpoint.lifetime) == (True, "online", 120)
    assert endpoint.object_versions == {"3": "1.2"}
    assert {"/3/0", "/3303/0", "/3304/0"} <= set(endpoint.object_links)
    latest = {row.path: row.value for row in Resource.objects.filter(device=endpoint)}
    assert latest == {"3303/0/5700": 21.5, "3304/0/5700": 41.5}
    assert ResourceValue.objects.filter(device=endpoint, path="3303/0/5700").count() == 3

    storing(one.reports[-1:])
    endpoint.refresh_from_db()
    assert (endpoint.registered, endpoint.status) == (False, "offline")


@pytest.mark.long
def test_a_composite_observation_brings_both_values_at_once(run, follow, tmp_path):
    server = run()
    with client(tmp_path / "client", NAME, server.port) as peer:
        one = follow(server, "3303/0/5700+3304/0/5700")
        await_for(lambda: one.values(NAME) == ["20.0"])
        peer.tell("temperature 21.5")
        await_for(lambda: one.values(NAME) == ["20.0", "21.5"])

    assert one.values(NAME, "/3304/0/5700") == ["20.0", "20.0"]
    assert one.of(NAME)[:3] == ["registration", "notification", "notification"]


@pytest.mark.long
def test_a_sleeping_endpoint_gets_requests_when_it_wakes_up(run, follow, tmp_path):
    server = run(awake=2)
    with client(tmp_path / "client", NAME, server.port, queue_mode=True) as peer:
        time.sleep(4)  # It sleeps before we follow.
        one = follow(server)
        await_for(lambda: one.of(NAME) == ["registration", "awake"])
        assert one.reports[0].content["registration"]["queue_mode"] is True
        assert one.reports[1].content == {"awake": False}
        time.sleep(2)
        assert one.values(NAME) == []

        peer.tell("update")
        await_for(lambda: one.values(NAME) == ["20.0"])
        await_for(lambda: one.of(NAME).count("awake") == 3)

    assert one.of(NAME)[2:4] == ["awake", "update"]
    assert one.reports[-1].content == {"awake": False}


@pytest.mark.long
def test_a_killed_client_that_returns_is_never_offline(run, follow, tmp_path):
    server = run()
    one = follow(server)
    with client(tmp_path / "first", NAME, server.port) as peer:
        await_for(lambda: one.values(NAME) == ["20.0"])
        peer.kill()
        with client(tmp_path / "second", NAME, server.port) as returned:
            await_for(lambda: len(one.values(NAME)) == 2)
            returned.tell("temperature 22.5")
            await_for(lambda: one.values(NAME) == ["20.0", "20.0", "22.5"])
            time.sleep(2)

    assert "deregistration" not in one.of(NAME)
    assert one.of(NAME).count("registration") == 2


@pytest.mark.long
def test_a_killed_client_is_deregistered_when_its_lifetime_has_passed(run, follow, tmp_path):
    server = run()
    one = follow(server)
    with client(tmp_path / "client", NAME, server.port, lifetime=5, period=3) as peer:
        await_for(lambda: one.values(NAME) == ["20.0"])
        await_for(lambda: "update" in one.of(NAME))
        assert "deregistration" not in one.of(NAME)
        peer.kill()
        await_for(lambda: one.of(NAME)[-1] == "deregistration")

    first = one.reports[0].content["registration"]
    assert one.reports[-1].content["deregistration"] == {"id": first["id"], "at": first["at"]}


@pytest.mark.long
def test_after_a_restart_of_the_server_endpoints_register_and_are_observed_again(run, follow, tmp_path):
    server = run()
    one = follow(server)
    with client(tmp_path / "client", NAME, server.port, period=2) as peer:
        await_for(lambda: one.values(NAME) == ["20.0"])
        server.kill()
        server.start()
        await_for(lambda: len(one.values(NAME)) == 2)
        peer.tell("temperature 22.5")
        await_for(lambda: one.values(NAME)[-1] == "22.5")

    assert "deregistration" not in one.of(NAME)
    ids = [report.content["registration"]["id"] for report in one.reports if "registration" in report.content]
    assert len(set(ids)) == len(ids) == 2


@pytest.mark.long
def test_the_demo_server_m4_is_followed(run, follow, tmp_path):
    server = run(DemoServer)
    one = follow(server, "3303/*/5700+3304/*/5700")
    with client(tmp_path / "client", NAME, server.port, lifetime=120) as peer:
        await_for(lambda: one.values(NAME) == [20.0])
        peer.tell("temperature 21.5")
        await_for(lambda: one.values(NAME) == [20.0, 21.5])
        peer.tell("update")
        await_for(lambda: "update" in one.of(NAME))
        peer.tell("quit")
        await_for(lambda: one.of(NAME)[-1] == "deregistration")

    assert (tmp_path / "Californium.properties").exists()  # It writes this wherever it runs.
    registration = one.reports[0].content["registration"]
    assert registration["lifetime"] == 120
    assert abs(registration["at"] / 1000 - time.time()) < 600
    assert "</3303/0>" in registration["links"]
