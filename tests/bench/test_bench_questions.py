"""Every dialect can be measured: the questions of `script/bench auth --dialects` are allowed."""

from __future__ import annotations

import pytest

from authsvc import tokens
from authsvc.dialects import DIALECTS
from bench import load, questions
from bench.__main__ import arguments
from rig.serving import Device

pytestmark = pytest.mark.sqlite_only


def test_all_dialects_have_their_questions():
    assert sorted(questions.DIALECTS) == sorted(dialect.name for dialect in DIALECTS)
    assert arguments(["auth", "--dialects", "all"]).dialects == list(questions.DIALECTS)
    assert arguments(["auth", "--dialects", "emqx,jwt"]).dialects == ["emqx", "jwt"]
    with pytest.raises(SystemExit):
        arguments(["auth", "--dialects", "mqtt"])


@pytest.mark.parametrize("dialect", questions.DIALECTS)
def test_a_known_device_is_allowed(send, loop, token, station, dialect):
    jwt = loop.run(tokens.issue(station.username, 60))
    device = Device(station.device.device_id, station.username, station.password, station.topic("data"), jwt)
    for make in questions.of_dialect(dialect).values():
        head, _, body = make(token, device).partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)

        reply = send("asgi", method, path, content=body.encode(), headers=headers)

        assert reply.status_code == 200
        assert reply.content.startswith(load.ALLOWS)
