"""Paths and methods: nothing is served besides the questions."""

from __future__ import annotations

import itertools
import json

import pytest

from authsvc.dialects.base import JSON
from rig.entrances import both_entrances
from rig.oracles import reads_as_allow
from rig.questions import by_dialect, by_question, first, good

pytestmark = pytest.mark.sqlite_first  # Its questions send the SQL of test_cases.py.

# ---------------------------------------------------------------- paths and methods

NOWHERE = [
    "/mqtt/go-auth/user/",
    "/mqtt/go-auth//user",
    "/mqtt//go-auth/user",
    "/mqtt/go-auth",
    "/mqtt/go-auth/",
    "/mqtt/GO-AUTH/user",
    "/mqtt/go-auth/User",
    "/mqtt/go-auth/user.json",
    "/mqtt/go-auth/../go-auth/user",
    "/mqtt/go-auth/user/extra",
    "/mqtt/emqx/user",
    "/mqtt/nobody/user",
    "/mqtt/k/go-auth/user",
    "/mqtt/k/x/y/go-auth/user",
    "/mqtt/k/",
    "/mqtt/go-auth/user\x00",
    "/mqtt/go-auth/user\ufffd",
    "/mqtt/go-auth/__class__",
    "/mqtt/" + "x" * 5_000,
]
ELSEWHERE = ["/mqtt", "/mqtt/", "/mqtt/go-auth/user\n", "/MQTT/go-auth/user", "//mqtt/go-auth/user"]


@both_entrances
def test_there_is_nothing_beside_the_questions(post, entrance, token):
    """No redirect to a right path, and no page with a status that reads as an allow."""
    headers = [(b"x-broker-secret", token.encode()), (b"content-type", JSON.encode())]

    for path, method in itertools.product(NOWHERE, ["POST", "GET", "HEAD"]):
        reply = post(entrance, path, method=method, headers=headers, body=b"{}")
        assert (reply.status, reply.content_type) == (404, JSON), (path, method)
    for path in ELSEWHERE:
        assert post(entrance, path, query=b"k=" + token.encode()).status == 404, path


@by_question
def test_other_methods_are_not_allowed(post, entrance, token, station, path):
    """The question would be allowed with POST."""
    headers = [(b"x-broker-secret", token.encode()), (b"content-type", JSON.encode())]
    body = json.dumps(good(path, station)).encode()

    for method in ("HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "CONNECT", "X"):
        assert post(entrance, f"/mqtt/{path}", method=method, headers=headers, body=body).status == 405, (
            method
        )


@by_dialect
@both_entrances
def test_no_session_and_no_csrf(question, allowed_client, dialect):
    path = first(dialect)
    body = json.dumps(good(path, allowed_client(path))).encode()

    for header in ((b"cookie", b"sessionid=x"), (b"origin", b"null"), (b"referer", b"http://x/")):
        assert reads_as_allow(path, question(path, body=body, headers=[header])), header
