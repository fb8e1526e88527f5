"""Fixtures: accounts and devices created once for a module, and functions that send questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from authsvc import background, conf
from authsvc.core import tokens
from authsvc.dialects.base import JSON
from authsvc.models import Account, Broker
from rig.cast import provision
from rig.entrances import ENTRANCES, Exchange, pieces
from rig.questions import OF_A_SUPERUSER, Root, World, token_of


@pytest.fixture
def post(loop):
    """Return a function that sends one request unchanged, also one that client libraries would correct."""

    def send(entrance, path, *, query=b"", headers=(), body=b"", method="POST", chunk=None):
        headers = [(b"host", b"localhost"), *headers]
        exchange = Exchange(
            pieces(body, chunk), path=path, query_string=query, headers=headers, method=method
        )
        reply = loop.run(exchange.run(ENTRANCES[entrance]))
        found = dict(exchange.headers)
        assert "location" not in found
        # VerneMQ, which asks with POST, would cache an allow, even with max-age=0.
        assert found.get("cache-control") == ("no-store" if method in ("GET", "HEAD") else None)
        return reply

    return send


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
def world(module_database) -> Iterator[World]:
    with module_database.unblock():
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
