"""Fixtures: accounts and devices created once for a module, and functions that send questions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from django.core.management import call_command

from authsvc import background, conf
from authsvc.core import tokens
from authsvc.dialects.base import JSON, Reply
from authsvc.models import Account, Broker
from rig.cast import provision
from rig.entrances import ENTRANCES
from rig.questions import OF_A_SUPERUSER, Root, World, token_of


@pytest.fixture
def post(loop):
    """Return a function that sends one request unchanged, also an invalid one that client libraries would correct."""

    async def one(entrance, path, *, query=b"", headers=(), body=b"", method="POST", chunk=None):
        parts = [body] if chunk is None else [body[i : i + chunk] for i in range(0, len(body), chunk)]
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts or [b""]]
        messages[-1]["more_body"] = False
        waiting = iter(messages)
        sent = []

        async def receive():
            message = next(waiting, None)
            if message is None:
                await asyncio.sleep(3600)  # The client stays connected and sends nothing more.
            return message

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": query,
            "headers": [(b"host", b"localhost"), *headers],
            "client": ("10.1.2.3", 40000),
            "server": ("localhost", 8000),
        }
        await ENTRANCES[entrance](scope, receive, send)
        headers_sent = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        content = b"".join(message.get("body", b"") for message in sent[1:])
        assert "location" not in headers_sent
        # VerneMQ, which asks with POST, would cache an allow, even with max-age=0.
        assert headers_sent.get("cache-control") == ("no-store" if method in ("GET", "HEAD") else None)
        return Reply(sent[0]["status"], content, headers_sent.get("content-type", ""))

    return lambda *arguments, **options: loop.run(one(*arguments, **options))


@pytest.fixture
def question(post, entrance, world):
    """Return a function that sends a question of an admitted broker: fields as JSON, or another body.

    Under jwt *bearer*, in the Authorization header, names the client: the station by default, or one that is allowed.
    """

    def one(path, fields=None, *, content_type=JSON, body=None, bearer=None, headers=(), **options):
        name, _, question_name = path.partition("/")
        url, sent = f"/mqtt/{path}", [*headers]
        if name == "jwt":
            if bearer is None:
                is_station = dict(fields or {}).get("username") == world.station.username
                bearer = world.bearers["root" if path in OF_A_SUPERUSER and not is_station else "station"]
            url = f"/mqtt/k/{world.token}/{path}"
            sent.append((b"authorization", b"Bearer " + bearer.encode()))
        else:
            sent.append((b"x-broker-secret", world.token.encode()))
        if name == "vernemq" and not any(header == b"vernemq-hook" for header, _ in headers):
            sent.append((b"vernemq-hook", f"auth_on_{question_name}".encode()))
        if content_type is not None:
            sent.append((b"content-type", content_type.encode("latin-1")))
        if body is None:
            body = json.dumps(fields).encode() if content_type == JSON else urlencode(fields).encode()
        return post(entrance, url, headers=sent, body=body, **options)

    return one


@pytest.fixture
def allowed_client(station, root):
    """Return a function that gives the client whom good() is allowed for: the station, or a superuser."""
    return lambda path: root if path in OF_A_SUPERUSER else station


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker) -> Iterator[World]:
    with django_db_blocker.unblock():
        broker = Broker(name="mosquitto-1")
        token = broker.issue_token()
        broker.save()
        account = Account(username="backend", is_superuser=True)
        root = Root("backend", account.generate_password())
        account.save()
        cast = {"station": provision("STATION-001"), "neighbour": provision("STATION-002"), "root": root}
        bearers = {name: token_of(who.username) for name, who in cast.items()}
        bearers["stranger"] = tokens.issue("stranger", 0, conf.options().jwt_keys, 3600)
        yield World(token, *cast.values(), bearers)
        background.stop()
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def token(world):
    return world.token


@pytest.fixture
def station(world):
    return world.station


@pytest.fixture
def neighbour(world):
    return world.neighbour


@pytest.fixture
def root(world):
    return world.root
