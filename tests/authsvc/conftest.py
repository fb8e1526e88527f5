"""A broker that asks for logins and topics, a clean record of denials, and projects of others."""

from __future__ import annotations

import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.core.cache import cache

from authsvc import background
from authsvc.operation import denials
from rig.asking import OK


@pytest.fixture
def nothing_pending(transactional_db):
    """Denials of this test only, all written before its database is emptied."""
    background.stop()
    denials.clear()
    yield
    background.stop()
    denials.clear()


@pytest.fixture
def login(ask):
    """The status that go-auth gets for a login."""

    def one(who, password=None, **fields):
        password = who.password if password is None else password
        known = {"username": who.username, "clientid": who.username, "password": password}
        return ask("go-auth/user", **(known | fields)).status_code

    return one


@pytest.fixture
def may(ask):
    """Whether a client may do something with a topic; acc is 1 receive, 2 publish, 4 subscribe."""

    def one(who, acc, topic, **fields):
        known = {"username": who.username, "clientid": who.username, "acc": acc, "topic": topic}
        return ask("go-auth/acl", **(known | fields)).status_code == OK

    return one


@pytest.fixture
def project(settings, loop, transactional_db):
    """Sets up a project; what comes back asks its Django entrance."""
    cache.clear()

    def configured(**options):
        for name, value in options.items():
            setattr(settings, name, value() if callable(value) else value)
        site = get_asgi_application()

        async def one(method, url, **request):
            transport = httpx.ASGITransport(site, client=("10.1.2.3", 40000))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, url, **request)

        return lambda *arguments, **request: loop.run(one(*arguments, **request))

    yield configured
    cache.clear()
