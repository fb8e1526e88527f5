"""The threads that observe and read endpoints: how much of their answers waits in memory, and when they stop."""

import time
from datetime import UTC, datetime

import pytest

from devicehub.lwm2m.leshan import intake as intake_module
from devicehub.lwm2m.leshan.intake import Intake, ListBegins
from devicehub.lwm2m.leshan.plans import Action, Step
from devicehub.lwm2m.leshan.requester import Requester
from devicehub.lwm2m.leshan.server import Answer, Result, ServerAway
from rig.hub import eventually

READ, OBSERVE = Step(Action.READ, ("/3/0/3",)), Step(Action.OBSERVE, ("/3303",))


class Server:
    """A server that gives the answers of *answers* in turn, and the last one again and again."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.requests = []

    def read(self, endpoint, path):
        return self._next(endpoint)

    def observe(self, endpoint, paths):
        return self._next(endpoint)

    def _next(self, endpoint):
        self.requests.append(endpoint)
        found = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def requesting():
    """Return the function that starts one thread for a server; it ends after the test."""
    started = []

    def start(server, may_be_requested=lambda *_: True):
        queue = Intake()
        one = Requester(server, queue, may_be_requested, threads=1)
        one.start()
        started.append((one, queue))
        return one, queue

    yield start
    for one, queue in started:
        queue.close()
        one.stop()


def taken(queue, count):
    """Return what *count* items of the queue say: the step, the result, and whether it is the last of its series."""
    found = []
    assert eventually(lambda: found.extend(queue.take(1, 0.01)) or len(found) == count)
    return [
        (one.content.step, one.content.answer and one.content.answer.result, one.content.is_last)
        for one in found
    ]


def test_long_answers_wait_until_there_is_room_for_them(requesting):
    server = Server(Answer(Result.VALUES, {}, size=intake_module.MOST_BYTES))
    requester, queue = requesting(server)
    for name in ("a", "b", "c"):
        requester.request(name, "first", [READ])

    assert eventually(lambda: len(server.requests) == 2)
    time.sleep(0.05)
    assert (len(queue), server.requests) == (1, ["a", "b"])
    queue.take(1, 0)
    assert eventually(lambda: len(server.requests) == 3)


def test_a_series_ends_with_an_answer_that_needs_a_pause(requesting):
    requester, queue = requesting(Server(Answer(Result.VALUES, {}), Answer(Result.SILENT, {})))
    requester.request("a", "first", [OBSERVE, READ, READ])

    assert taken(queue, 2) == [(OBSERVE, Result.VALUES, False), (READ, Result.SILENT, True)]


def test_a_server_that_is_away_ends_the_series(requesting):
    requester, queue = requesting(Server(ServerAway("it is away")))
    requester.request("a", "first", [OBSERVE, READ])

    assert taken(queue, 1) == [(OBSERVE, None, True)]


def test_an_endpoint_that_fell_asleep_between_two_steps_gets_no_request(requesting):
    server = Server(Answer(Result.VALUES, {}))
    requester, queue = requesting(server, lambda *_: len(server.requests) < 1)
    requester.request("a", "first", [OBSERVE, READ])

    assert taken(queue, 2) == [(OBSERVE, Result.VALUES, False), (None, None, True)]
    assert len(server.requests) == 1


def test_a_stop_ends_a_series_after_its_present_request(requesting):
    class Stopping(Server):
        def observe(self, endpoint, paths):
            requester.stop()
            return super().observe(endpoint, paths)

    server = Stopping(Answer(Result.VALUES, {}))
    requester, queue = requesting(server)
    requester.request("a", "first", [OBSERVE, READ])

    assert taken(queue, 2) == [(OBSERVE, Result.VALUES, False), (None, None, True)]
    assert server.requests == ["a"]


def test_a_bug_with_one_endpoint_does_not_end_the_thread(requesting, caplog):
    server = Server(KeyError("a bug"), Answer(Result.VALUES, {}))
    requester, queue = requesting(server)
    requester.request("a", "first", [READ])
    requester.request("b", "first", [READ])

    assert taken(queue, 2) == [(None, None, True), (READ, Result.VALUES, True)]
    assert "leshan.bug" in caplog.text


def test_a_closed_queue_takes_nothing_and_keeps_nobody_waiting():
    queue = Intake()
    assert queue.put(ListBegins(), datetime.now(UTC), size=intake_module.MOST_BYTES)
    queue.close()

    assert not queue.put(ListBegins(), datetime.now(UTC))
    assert len(queue.take(2, 0)) == 1
    assert queue.take(2, 60) == []
