"""A broker that asks for logins and topics, and a clean record of denials."""

from __future__ import annotations

import pytest

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
