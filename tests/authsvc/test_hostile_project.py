"""The Django entrance in a project with obstacles for brokers: it answers as the ASGI entrance does."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from django.db import connections
from django.http import HttpResponse
from django.urls import include, path

from authsvc import policy, views
from authsvc.dialects import DIALECTS, emqx
from authsvc.models import Broker
from devicehub import provisioning
from rig.entrances import ENTRANCES, send_request
from rig.hostile_projects import HOSTILE, plain
from rig.questions import first, good

pytestmark = pytest.mark.sqlite_first

# vernemq and jwt need headers of their own.
LOGINS = [first(dialect) for dialect in DIALECTS if dialect.name not in ("jwt", "vernemq")]
# Headers that a client library or a proxy may add to a question.
ADDED = {
    "accept": "text/html",
    "accept-encoding": "gzip",
    "accept-language": "de",
    "if-none-match": '"*"',
    "if-modified-since": "Sun, 22 Nov 2099 00:00:00 GMT",
    "x-forwarded-host": "localhost",
    "x-forwarded-for": "127.0.0.1",
    "cookie": "anything=x",
}


def asgi_answer(loop, method, url, **options):
    """Return the answer of the ASGI entrance, which the project does not affect."""
    reply = loop.run(send_request(ENTRANCES["asgi"], method, url, **options))
    return reply.status_code, reply.headers["content-type"], reply.content


# ---------------------------------------------------------------- settings with no effect


@pytest.mark.sqlite_first  # A project affects requests and answers, not the SQL in between.
@pytest.mark.parametrize("added", [{}, ADDED], ids=["as brokers ask", "with more headers"])
@pytest.mark.parametrize("name", HOSTILE)
def test_the_answer_is_the_one_of_the_asgi_entrance(project, loop, token, station, name, added, monkeypatch):
    """Byte for byte: allows and denials, unknown paths, and methods that are not allowed.

    A project sees the path, the method and the headers of a question, and the bytes of its answer: one question of
    each dialect has them all. More headers change what middleware does with an answer, so then one question for each
    kind of answer is enough: JSON, a long one, text, an error, and one without a body.
    """
    # Fixed, because rules expire by the clock.
    monkeypatch.setattr(emqx, "time", SimpleNamespace(time=lambda: 1_800_000_000.0))
    site = project(**HOSTILE[name])
    stranger = good("go-auth/user", station) | {"username": "stranger"}
    questions = [
        *(("POST", f"/mqtt/{path}?k={token}", {"json": good(path, station)}) for path in LOGINS),
        ("POST", f"/mqtt/go-auth/user?k={token}", {"json": stranger}),
        ("GET", f"/mqtt/rabbitmq/user?{urlencode(good('rabbitmq/user', station))}&k={token}", {}),
        ("POST", f"/mqtt/k/{token}/go-auth/user", {"data": good("go-auth/user", station)}),
        ("POST", "/mqtt/go-auth/user?k=wrong", {"json": good("go-auth/user", station)}),
        ("POST", "/mqtt/emqx/authz", {"content": b"no question"}),
        *(("GET", f"/mqtt{path}", {}) for path in ("/", "/go-auth", "/go-auth/user/", "/x%0ay", "/%00")),
        *(
            (method, f"/mqtt/go-auth/user?k={token}", {})
            for method in ("HEAD", "OPTIONS", "DELETE", "TRACE", "PATCH", "PROPFIND")
        ),
        *((method, f"/mqtt/go-auth/nothing?k={token}", {}) for method in ("HEAD", "OPTIONS", "DELETE")),
    ]
    if added:
        kinds = ("/go-auth/user?k=", "/emqx/authn?", "/rabbitmq/user?", "/go-auth/nothing?")
        questions = [
            question
            for question in questions
            if any(kind in question[1] for kind in kinds) and question[0] in ("POST", "GET", "HEAD")
        ]
        assert len(questions) > len(kinds)

    for method, url, fields in questions:
        options = {**fields, "headers": added | {"x-forwarded-proto": "https"}}
        assert plain(site(method, url, **options)) == asgi_answer(loop, method, url, **options), (method, url)


def test_an_allow_is_never_served_from_a_cache(project, token, station):
    """RabbitMQ asks with GET, which caches store."""
    site = project(**HOSTILE["a cache of the whole site"])
    url = f"/mqtt/rabbitmq/user?{urlencode(good('rabbitmq/user', station))}&k={token}"
    assert site("GET", url).text == "allow"

    provisioning.revoke(station.device)

    assert site("GET", url).text == "deny"


def test_django_caches_no_answer_where_it_reads_no_header(project, token, station, monkeypatch):
    """Early releases of Django 5.2 cache an answer in spite of no-store."""
    monkeypatch.setattr(
        views, "_response", lambda _request, reply: HttpResponse(reply.body, status=reply.status)
    )
    site = project(**HOSTILE["a cache of the whole site"])
    url = f"/mqtt/rabbitmq/user?{urlencode(good('rabbitmq/user', station))}&k={token}"
    assert site("GET", url).text == "allow"

    provisioning.revoke(station.device)

    assert site("GET", url).text == "deny"


@pytest.mark.parametrize("what", ["mqtt/go-auth/user", "healthz"])
def test_requests_in_transactions_are_answered(project, token, station, monkeypatch, what):
    """With ATOMIC_REQUESTS Django refuses asynchronous views without a mark."""
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    site = project()

    reply = site("POST", f"/{what}?k={token}", json=good("go-auth/user", station))

    assert reply.status_code == 200


def test_a_long_answer_that_was_compressed_is_the_answer(project, token, station):
    """Only EMQX gets answers of 200 bytes and more; they are compressed for clients that accept it."""
    site = project(**HOSTILE["compressed answers"])
    question = {"json": good("emqx/authn", station)}

    packed = site("POST", f"/mqtt/emqx/authn?k={token}", headers={"accept-encoding": "gzip"}, **question)
    bare = site("POST", f"/mqtt/emqx/authn?k={token}", headers={"accept-encoding": "identity"}, **question)

    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json()["acl"] == bare.json()["acl"]
    assert bare.headers.get("content-encoding") is None


@pytest.mark.parametrize("debug", [True, False])
def test_a_fault_shows_nothing_and_is_no_allow(project, token, station, monkeypatch, debug):
    """Neither the page of DEBUG with the whole request nor the 500 of Django is shown."""

    def broken(*_arguments):
        raise RuntimeError("provoked")

    monkeypatch.setattr(policy, "cached", broken)
    site = project(DEBUG=debug)

    reply = site("POST", f"/mqtt/go-auth/user?k={token}", json=good("go-auth/user", station))

    assert plain(reply) == (503, "application/json", b'{"ok":false,"error":"unavailable"}')


def test_a_claimed_address_is_not_read(project, token, station):
    """Neither USE_X_FORWARDED_HOST nor headers of a proxy put the caller into the network of the broker."""
    Broker.objects.update(networks=["192.0.2.0/24"])
    site = project(USE_X_FORWARDED_HOST=True)

    for header in (
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "x-forwarded-host",
        "client-ip",
        "remote-addr",
    ):
        value = "for=192.0.2.1" if header == "forwarded" else "192.0.2.1"
        headers = {header: value} | ({"x-forwarded-host": "localhost"} if "host" in header else {})
        reply = site(
            "POST", f"/mqtt/go-auth/user?k={token}", json=good("go-auth/user", station), headers=headers
        )
        assert reply.status_code == 403, header


def test_under_another_prefix_it_answers_too(project, token, station):
    site = project(ROOT_URLCONF=(path("inner/broker/", include("authsvc.urls")),))

    reply = site("POST", f"/inner/broker/k/{token}/go-auth/user", json=good("go-auth/user", station))

    assert plain(reply) == (200, "application/json", b'{"ok":true,"error":""}')
