"""Fixtures: a broker that asks about logins and topics, empty denials, and other projects."""

from __future__ import annotations

import pytest
from django.core.asgi import get_asgi_application
from django.core.cache import cache

from authsvc import background
from authsvc.operation import denials, notes
from rig.asking import OK
from rig.entrances import send_request


@pytest.fixture
def nothing_pending(transactional_db):
    """Drop pending denials before a test, and write those of the test before its database is flushed."""
    background.stop()
    denials.clear()
    notes.clear()
    yield
    background.stop()
    denials.clear()
    notes.clear()


@pytest.fixture
def login(ask):
    """Return a function that logs in through go-auth and returns the status."""

    def one(who, password=None, **fields):
        password = who.password if password is None else password
        defaults = {"username": who.username, "clientid": who.username, "password": password}
        return ask("go-auth/user", **(defaults | fields)).status_code

    return one


@pytest.fixture
def may(ask):
    """Return a function that asks whether a client may use a topic; acc is 1 receive, 2 publish, 4 subscribe."""

    def one(who, acc, topic, **fields):
        defaults = {"username": who.username, "clientid": who.username, "acc": acc, "topic": topic}
        return ask("go-auth/acl", **(defaults | fields)).status_code == OK

    return one


@pytest.fixture
def project(settings, loop, transactional_db):
    """Return a function that sets up a project and returns a function that sends requests to its Django entrance."""
    cache.clear()

    def configured(**options):
        for name, value in options.items():
            setattr(settings, name, value() if callable(value) else value)
        site = get_asgi_application()

        def send(method, url, **options):
            return loop.run(send_request(site, method, url, **options))

        return send

    yield configured
    cache.clear()
