"""A stream of changes ends with the login that opened it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connections
from django.test import AsyncClient, Client
from django.utils import timezone

from devicehub.dashboard import live
from devicehub.models import SiteScope
from devicehub.stream import logins, thread
from rig.people import person

# The values of production, before a fixture changes them.
checks_at_least_every, looks_at_least_every = live.CHECK_SECONDS, live.SECONDS
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite_first]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look and check often, and leave no connection behind."""
    monkeypatch.setattr(live, "SECONDS", 0.01)
    monkeypatch.setattr(live, "CHECK_SECONDS", 0.02)
    yield
    thread.executor.submit(lambda: None).result()


@pytest.fixture
def viewer() -> User:
    return person("viewer", password="looks-around")


@pytest.fixture
def outlives(loop: asyncio.Runner, viewer: User) -> Callable[..., bool]:
    """Return a function that returns whether the stream of the viewer continues after an event."""

    async def listen(happen: Callable[[], Any], seconds: float) -> bool:
        client = AsyncClient()
        await client.aforce_login(viewer)
        response: Any = await client.get("/stream/")
        assert response.status_code == 200
        stream: AsyncGenerator[bytes, None] = response._iterator
        await anext(stream)
        await sync_to_async(happen)()
        try:
            async with asyncio.timeout(seconds):
                async for _ in stream:
                    pass
        except TimeoutError:
            return True
        finally:
            await stream.aclose()
            await sync_to_async(response.close)()
            await sync_to_async(connections.close_all)()
        return False

    return lambda happen, seconds=10: loop.run(listen(happen, seconds))


def switch_off() -> None:
    User.objects.update(is_active=False)


def lose_the_role() -> None:
    User.objects.get().groups.clear()


def limit() -> None:
    SiteScope.objects.create(user=User.objects.get(), sites=["north"])


def change_password() -> None:
    user = User.objects.get()
    user.set_password("another-one")
    user.save()


def expire() -> None:
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize(
    "happen",
    [
        switch_off,
        change_password,
        expire,
        lose_the_role,
        limit,
        lambda: User.objects.all().delete(),
        lambda: Session.objects.all().delete(),
    ],
    ids=["switched-off", "new-password", "expired", "no-role", "limited", "deleted", "signed-out"],
)
def test_a_stream_ends_with_its_login(outlives, happen):
    assert not outlives(happen)
    assert not live._streams


@pytest.mark.sqlite_only
def test_a_stream_goes_on_with_its_login(outlives, monkeypatch):
    checks: list[bool] = []
    counts = live.Login.counts
    monkeypatch.setattr(live.Login, "counts", lambda login: checks.append(counts(login)) or checks[-1])
    monkeypatch.setattr(live, "CHECK_SECONDS", 0.15)

    assert outlives(lambda: User.objects.create_user("somebody", is_active=False), seconds=0.5)
    assert all(checks)
    assert 1 <= len(checks) <= 4  # There are many more events in that time.
    assert not live._streams


@pytest.mark.sqlite_only
def test_a_stream_ends_when_its_login_cannot_be_read(outlives, monkeypatch):
    def away(*_: Any) -> None:
        raise DatabaseError

    assert not outlives(lambda: monkeypatch.setattr(logins, "get_user", away))


@pytest.mark.sqlite_only
def test_a_user_without_a_session_is_looked_up(viewer, rf):
    login = live.Login(rf.get("/stream/"), viewer)
    assert login.counts()

    switch_off()
    assert not login.counts()
    User.objects.all().delete()
    assert not login.counts()


@pytest.mark.sqlite_only
def test_a_session_that_another_user_took_over_does_not_count(viewer, client: Client, rf):
    client.force_login(viewer)
    request = rf.get("/stream/")
    request.session = client.session
    login = live.Login(request, viewer)
    assert login.counts()

    session = client.session
    session["_auth_user_id"] = str(User.objects.create_user("somebody").pk)
    session.save()
    assert not login.counts()


@pytest.mark.sqlite_only
def test_a_login_is_checked_often_enough():
    """SECURITY.md promises five seconds; the remaining time is for the work itself."""
    assert checks_at_least_every + looks_at_least_every <= 3
