"""A token in a mistyped URL does not reach any log that prints the path."""

from __future__ import annotations

import logging
import socket
import time
from urllib.parse import quote, urlsplit

import pytest
from django.http import Http404
from django.test import RequestFactory

from authsvc import logs
from rig import hub, leaks

pytestmark = pytest.mark.sqlite_only

TOKENS = [
    "mK3vQ0hB7xw1Zr9sT2uYp4aNd6eF8gHjL-_cVbXqWiE",
    "kqzvhwbnxwrzrasttuuypdaandeeffgghjlzzcvbxqwi",  # By chance without a digit and a capital letter.
    "0123456789012345678901234567890123456789012",
]


def written(token: str) -> list[str]:
    """Return paths that an operator could mistype, or paste in a wrong place."""
    encoded = "".join(f"%{ord(letter):02x}" for letter in token)
    return [
        f"/go-auth/{token}",
        f"/go-auth/{token}/user",
        f"/mqtt/{token}/go-auth/user",
        f"/{token}",
        f"//go-auth//{token}//",
        f"/go-auth/{token}xyz",
        f"/go-auth/{token}.user?",
        f"/go-auth/{token[:21]}~{token[21:]}",
        f"/go-auth/%20{token}",
        f"/go-auth/{encoded}",
        f"/go-auth%2F{token}",
        f"/go-auth/{quote(encoded)}",
        f"/go-auth;k={token}",
        f"/mqtt/K/{token}/user",
        f"/admin/{token}/",
        f"/static/{token}",
    ]


@pytest.mark.parametrize("token", TOKENS)
def test_a_path_that_is_not_found_is_logged_without_its_token(send, transactional_db, token):
    with leaks.everything_logged() as logged:
        for path in written(token):
            send("django", "GET", path)
            send("asgi", "POST", path, json={})

    assert leaks.leaked(logged.text, [token, quote(token), token[:20]]) == []
    assert "/go-auth/***" in logged.text


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize(
    "text",
    [
        "Not Found: /go-auth/{}",
        "Not Found: /go-auth/ {}",
        "Bad Request: /go-auth/{}/",
        '"GET /go-auth/{} HTTP/1.1" 404 20',
        "Forbidden (CSRF cookie not set.): /go-auth/{}",
        "Invalid HTTP request line: 'GET http://hub/{}'",
        "Invalid HTTP_HOST header: 'hub/go-auth/{}'.",
    ],
)
def test_messages_are_masked(text, token):
    masked = logs._without_secrets(text.format(token))

    assert token[:20] not in masked
    assert masked.split("/")[0] == text.split("/")[0]


@pytest.mark.parametrize(
    "text",
    [
        "Not Found: /admin/fleet/weatherstationdevice/12/change/",
        "Not Found: /static/devicehub/vendor/uplot/uPlot.iife.min.js",
        "Bad Request: /api/token",
        "Invalid HTTP_HOST header: 'a-rather-long-name.of-a-server.example.org'.",
        '  File "/srv/0123456789abcdefABCDEF01234/site-packages/django/core/handlers/exception.py", line 55',
        "    raise AxesBackendRequestParameterRequired(",
        "django.core.exceptions.TooManyFieldsSentToThisView: nothing",
    ],
)
def test_other_texts_are_not_masked(text):
    assert logs._without_secrets(text) == text


def test_a_foreign_host_with_a_token_is_masked(send, transactional_db):
    """The token was pasted in place of the host."""
    with leaks.everything_logged() as logged:
        send("django", "GET", "/login/", headers={"host": TOKENS[0]})

    assert leaks.leaked(logged.text, TOKENS) == []


def test_the_traceback_of_a_page_shows_no_token_and_no_variable(send, transactional_db, monkeypatch):
    """The page is not a question, and its exception repeats the path."""

    def breaks(_handler, request):
        raise RuntimeError(f"no page at {request.path}")

    monkeypatch.setattr("django.core.handlers.base.BaseHandler.resolve_request", breaks)
    with leaks.everything_logged() as logged:
        for path in written(TOKENS[0]):
            send("django", "GET", path)

    assert "RuntimeError: no page at /go-auth/***" in logged.text
    assert leaks.leaked(logged.text, TOKENS) == []


def test_a_page_keeps_its_request_and_its_traceback():
    """Only records with a token lose them."""
    request = RequestFactory().get("/fleet/none")
    error = Http404("no such page")
    caught = (Http404, error, None)
    record = logging.LogRecord(
        "django.request", logging.WARNING, "", 0, "Not Found: %s", (request.path,), caught
    )
    record.request = request

    assert logs.hide_question(record)

    assert record.__dict__["request"] is request
    assert record.exc_info is caught


@pytest.mark.parametrize("server", logs.SERVERS)
def test_the_logs_of_servers_are_masked_argument_by_argument(server):
    """uvicorn's formatter reads the arguments of an access line one by one."""
    record = logging.LogRecord(
        f"{server}.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d',
        ("127.0.0.1:1", "GET", f"/go-auth/{TOKENS[0]}", "1.1", 404), None,
    )  # fmt: skip
    logger = logging.getLogger(f"{server}.access")

    assert logger.filter(record)

    assert record.args == ("127.0.0.1:1", "GET", "/go-auth/***", "1.1", 404)


def test_a_long_text_is_masked_in_linear_time():
    """Any client chooses the path, and logging it must not cost more than the answer."""
    began = time.process_time()
    for text in ("/" + "a" * 19 + ".", "%2", "aA1-" * 4 + "~"):
        logs._without_secrets("Not Found: /" + text * (60_000 // len(text)))

    assert time.process_time() - began < 2


@pytest.mark.servers
def test_gunicorn_writes_no_token(tmp_path, transactional_db):
    """The real server, its error log and access log, and a line that is not HTTP."""
    lines = [f"GET {path} HTTP/1.1\r\nHost: localhost".encode() for path in written(TOKENS[0])]
    lines += [f"GET /login/ HTTP/1.1\r\nHost: {TOKENS[0]}".encode()]
    lines += [f"GET /go-auth/{TOKENS[0]} FTP/9\r\nHost: localhost".encode()]
    with hub.gunicorn(tmp_path, GUNICORN_CMD_ARGS="--log-level debug --access-logfile -") as url:
        for line in lines:
            with socket.create_connection(("127.0.0.1", urlsplit(url).port), 10) as connection:
                connection.sendall(line + b"\r\nConnection: close\r\n\r\n")
                while connection.recv(65536):
                    pass

    text = (tmp_path / "gunicorn.log").read_text()
    assert '"GET /go-auth/*** HTTP/1.1" 404' in text
    assert leaks.leaked(text, [TOKENS[0], TOKENS[0][:20]]) == []
