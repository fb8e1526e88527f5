"""Follow a Leshan server over HTTP: events, lists, answers, broken streams, restarts, and a database that is slow."""

import time

import pytest

from devicehub.backoff import Backoff
from devicehub.lwm2m.leshan import follower as follower_module
from devicehub.lwm2m.leshan import intake as intake_module
from devicehub.lwm2m.leshan import roll as roll_module
from devicehub.lwm2m.leshan.shapes import Deregistered, Values
from rig.fake_leshan import LINKS, TEMPERATURE, fake_leshan, link
from rig.hub import eventually
from rig.leshan.following import PATH, SECONDS, Following


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(follower_module, "AWAY", Backoff((0.01,)))
    monkeypatch.setattr(follower_module, "POLL", 0.01)


@pytest.fixture
def fake():
    with fake_leshan() as fake:
        fake.nodes["urn:dev:a", PATH] = TEMPERATURE
        yield fake


@pytest.fixture
def following(fake):
    """Return the function that starts a follower, when the stream is open and the list is read."""
    started = []

    def start(*wishes):
        one = Following(fake.url, *wishes)
        started.append(one)
        assert eventually(lambda: one.error or one.lines)
        return one

    yield start
    for one in started:
        one.stop()


def node(value):
    return TEMPERATURE | {"value": value}


def test_an_endpoint_that_is_registered_before_is_observed(fake, following):
    fake.register("urn:dev:a")

    one = following()

    assert eventually(lambda: one.values("urn:dev:a") == ["20.0"])
    assert one.of("urn:dev:a") == ["registration", "notification"]
    assert one.lines == [f"follows {fake.url}; registered endpoints: 1"]
    assert eventually(lambda: fake.requests_to("urn:dev:a") == [f"POST {PATH}/observe", "GET /3/0/3"])


def test_an_endpoint_that_registers_later_is_observed_and_its_notifications_stored(fake, following):
    one = following()
    fake.register("urn:dev:a")
    assert eventually(lambda: one.values("urn:dev:a") == ["20.0"])

    fake.trace("urn:dev:a")
    fake.notify("urn:dev:a", PATH, node("21.5"))
    fake.notify_composite("urn:dev:a", {PATH: node("22.5"), "/3/0/9": None})
    fake.send("urn:dev:a", {PATH: node("23.5")})

    assert eventually(lambda: one.values("urn:dev:a") == ["20.0", "21.5", "22.5", "23.5"])
    assert one.of("urn:dev:a") == ["registration", *["notification"] * 3, "send"]


def test_m4_is_followed():
    with fake_leshan("M4") as fake:
        fake.nodes["urn:dev:a", PATH] = {"id": 5700, "value": 30.0}
        fake.register("urn:dev:a")
        one = Following(fake.url, "3303/*/5700+3/0/3")
        assert eventually(lambda: one.values("urn:dev:a") == [30.0])

        fake.notify("urn:dev:a", PATH, {"id": 5700, "value": 31.5})
        fake.deregister("urn:dev:a")

        assert eventually(lambda: one.of("urn:dev:a")[-1] == "deregistration")
        assert one.values("urn:dev:a") == [30.0, 31.5]
        one.stop()


def test_a_returning_client_is_observed_again_and_never_called_offline(fake, following, monkeypatch):
    fake.register("urn:dev:a")
    one = following()
    assert eventually(lambda: len(one.values("urn:dev:a")) == 1)

    fake.register("urn:dev:a")

    assert eventually(lambda: len(one.values("urn:dev:a")) == 2)
    one.stop()
    assert one.of("urn:dev:a") == ["registration", "notification"] * 2


def test_a_restart_of_the_server_takes_nobody_offline(fake, following):
    fake.register("urn:dev:a")
    one = following()
    assert eventually(lambda: len(one.values("urn:dev:a")) == 1)

    fake.restart()
    assert eventually(lambda: len(one.lines) == 3)
    assert one.lines[1:] == [
        f"{fake.url}: it ended the stream of events; trying again",
        f"follows {fake.url}; registered endpoints: 0",
    ]
    fake.register("urn:dev:a")

    assert eventually(lambda: len(one.values("urn:dev:a")) == 2)
    one.stop()
    assert one.of("urn:dev:a") == ["registration", "notification"] * 2


def test_what_happened_while_the_stream_was_broken_is_made_up_for(fake, following):
    fake.register("urn:dev:a")
    one = following()
    assert eventually(lambda: len(one.values("urn:dev:a")) == 1)

    fake.nodes["urn:dev:a", PATH] = node("25.0")
    fake.register("urn:dev:b", is_silent=True)
    fake.refused_streams = 3
    fake.break_streams()

    assert eventually(lambda: one.of("urn:dev:b") == ["registration"])
    assert eventually(lambda: one.values("urn:dev:a") == ["20.0", "25.0"])


def test_a_sleeping_endpoint_gets_no_request_until_it_wakes_up(fake, following):
    fake.register("urn:dev:q", queue_mode=True, sleeping=True, is_silent=True)
    fake.nodes["urn:dev:q", PATH] = TEMPERATURE
    one = following()
    assert eventually(lambda: one.of("urn:dev:q") == ["registration", "awake"])
    assert fake.requests_to("urn:dev:q") == []

    fake.sleep("urn:dev:q", is_awake=True)

    assert eventually(lambda: one.values("urn:dev:q") == ["20.0"])


def test_endpoints_that_do_not_answer_hold_up_neither_events_nor_others(fake, following, monkeypatch):
    monkeypatch.setattr(roll_module, "RETRY", Backoff((0.01,)))
    fake.time_out.clear()
    for number in range(8):
        fake.register(f"urn:dev:dead{number}")
        fake.silent.add(f"urn:dev:dead{number}")
    fake.register("urn:dev:a")
    one = following()

    assert eventually(lambda: one.values("urn:dev:a") == ["20.0"])
    fake.notify("urn:dev:a", PATH, node("21.5"))
    assert eventually(lambda: one.values("urn:dev:a") == ["20.0", "21.5"])
    assert len(fake.requests_to("urn:dev:dead0")) == 1

    fake.time_out.set()
    assert eventually(lambda: len(fake.requests_to("urn:dev:dead0")) == roll_module.MOST_ATTEMPTS)


def test_new_instances_of_an_update_are_observed(fake, following):
    fake.register("urn:dev:a")
    one = following()
    assert eventually(lambda: len(one.values("urn:dev:a")) == 1)

    fake.update("urn:dev:a", objectLinks=[*LINKS, link("/3303/1")])

    assert eventually(lambda: "POST /3303/1/5700/observe" in fake.requests_to("urn:dev:a"))
    assert one.of("urn:dev:a").count("update") == 1


def test_unreadable_events_are_counted_and_skipped(fake, following):
    one = following()
    fake.emit_raw(b"event: SEND\r\ndata: {\r\n\r\n")
    fake.emit("REGISTRATION", {"endpoint": "urn:dev:a"})
    fake.emit_raw(b"event: SEND\r\ndata: " + b"x" * 2_000_000 + b"\r\n\r\n")
    fake.register("urn:dev:a")

    assert eventually(lambda: one.values("urn:dev:a") == ["20.0"])
    assert one.follower.malformed == 3


def test_while_the_database_is_slow_the_stream_waits_and_nothing_is_lost(fake, following, monkeypatch):
    monkeypatch.setattr(intake_module, "MOST_ITEMS", 10)
    fake.register("urn:dev:a")
    one = following()
    assert eventually(lambda: len(one.values("urn:dev:a")) == 1)

    one.gate.clear()
    for number in range(2000):
        fake.notify("urn:dev:a", PATH, node(str(number)))
    assert eventually(lambda: one.follower.waiting == 10)
    time.sleep(0.05)
    assert one.follower.waiting == 10
    one.gate.set()

    assert eventually(lambda: one.values("urn:dev:a")[1:] == [str(number) for number in range(2000)])


def test_events_that_were_read_are_stored_at_the_end(fake, following):
    fake.register("urn:dev:a")
    one = following()
    assert eventually(lambda: len(one.values("urn:dev:a")) == 1)
    one.gate.clear()
    fake.send("urn:dev:a", {PATH: node("21.5")})
    assert eventually(lambda: one.is_held)
    fake.send("urn:dev:a", {PATH: node("22.5")})
    fake.deregister("urn:dev:a")
    assert eventually(lambda: Deregistered in one.waiting())
    assert Values in one.waiting()

    one.stop()

    assert one.of("urn:dev:a")[-1] == "deregistration"
    assert one.values("urn:dev:a") == ["20.0", "21.5", "22.5"]


def test_a_refusal_at_the_beginning_ends_the_follower(fake):
    with fake_leshan(login="hub:secret") as guarded:
        one = Following(guarded.url)
        one.thread.join(SECONDS)

    assert "status 401" in str(one.error)


def test_a_refusal_later_does_not(fake, following):
    one = following()
    fake.login = "hub:secret"
    fake.break_streams()
    assert eventually(lambda: len(one.lines) > 2)
    fake.login = ""

    assert eventually(lambda: one.lines[-1].startswith("follows"))
    assert "status 401" in one.lines[2]
    assert one.error is None


def test_it_stops_soon_while_the_server_is_away(monkeypatch):
    monkeypatch.setattr(follower_module, "AWAY", Backoff((60,)))
    with fake_leshan() as gone:
        pass
    one = Following(gone.url)
    assert eventually(lambda: one.lines)
    began = time.monotonic()

    one.stop()

    assert time.monotonic() - began < 30, "the pause of 60 s does not delay the end"
    assert "Connection refused" in one.lines[0]


@pytest.mark.parametrize(("settled", "failures"), [(60.0, [1, 2, 3]), (0.0, [1, 1, 1])])
def test_streams_that_break_soon_are_opened_less_and_less_often(
    fake, following, monkeypatch, settled, failures
):
    counted = []

    class Recording:
        def after(self, number):
            counted.append(number)
            return 0.01

    monkeypatch.setattr(follower_module, "AWAY", Recording())
    monkeypatch.setattr(follower_module, "SETTLED", settled)
    one = following()
    for number in range(1, 4):
        fake.break_streams()
        assert eventually(lambda number=number: len(one.lines) == 1 + 2 * number)

    assert counted == failures


def test_a_bug_with_one_event_ends_neither_the_follower_nor_the_others(fake, following, monkeypatch, caplog):
    one = following()
    handle = one.follower.roll.handle

    def fails_once(arrived):
        if not isinstance(arrived.content, Values):  # The end of the list may still be waiting.
            return handle(arrived)
        monkeypatch.setattr(one.follower.roll, "handle", handle)
        raise KeyError("a bug")

    monkeypatch.setattr(one.follower.roll, "handle", fails_once)
    fake.send("urn:dev:a", {PATH: node("21.5")})
    fake.send("urn:dev:a", {PATH: node("22.5")})

    assert eventually(lambda: one.values("urn:dev:a") == ["22.5"])
    assert "leshan.bug" in caplog.text
