"""The file of credentials is streamed piece by piece, under ASGI as under WSGI, and ends with its reader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncRequestFactory, RequestFactory

from authsvc import audit
from devicehub.bulk.rotations import Overtaken
from devicehub.dashboard import credentials_file

# The end of an answer looks at the connection to the database.
pytestmark = [pytest.mark.pages, pytest.mark.django_db]


@pytest.fixture
def made() -> list[str]:
    """Return the actors of the steps that were made."""
    return []


def batches(made: list[str]):
    for number in range(3):
        made.append(audit.current_actor().name)
        yield [{"type": "t", "device_id": f"A-{number}", "mqtt_password": "x"}]


def request_of(factory: Any) -> Any:
    request = factory.post("/")
    request.user = User(username="olga")
    return request


def test_a_step_is_made_when_its_text_is_wanted(made):
    answer = credentials_file.answer(request_of(RequestFactory()), "f", "csv", batches(made))
    pieces = iter(answer.streaming_content)

    next(pieces)
    assert made == []
    assert b"A-0" in next(pieces)
    assert made == ["olga"]
    answer.close()
    assert made == ["olga"]
    assert audit.current_actor().name != "olga"


@pytest.mark.parametrize("form", ["csv", "json"])
def test_the_file_of_an_overtaken_run_ends_with_the_reason_and_breaks_off(made, form):
    def overtaken():
        yield from batches(made)
        raise Overtaken

    pieces = iter(credentials_file.answer(request_of(RequestFactory()), "f", form, overtaken()))

    found = [next(pieces) for _ in range(5)]
    assert b"rotate again" in found[-1]
    with pytest.raises(Overtaken):
        next(pieces)


@pytest.mark.django_db(transaction=True)
def test_asgi_gets_the_same_pieces_one_by_one(made):
    async def read() -> list[bytes]:
        answer = credentials_file.answer(request_of(AsyncRequestFactory()), "f", "json", batches(made))
        assert answer.is_async
        pieces = aiter(answer.streaming_content)
        found = [await anext(pieces), await anext(pieces)]
        assert made == ["olga"]
        await pieces.aclose()
        return found

    assert asyncio.run(read())[0] == b"["
    assert made == ["olga"]
