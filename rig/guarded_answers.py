"""A guard around tests of the API: an answer holds no secret but that which it made."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection
from django.test import Client

from authsvc import secret_columns, tokens
from authsvc.core import passwords
from devicehub import api_keys
from devicehub.db.statements import quoted

SHORTEST = 16  # Characters of a secret; a shorter text of a test may be in an answer by chance.
MANY = 200  # With more secrets an answer is compared by its words, each of which is then looked up.
WORD = re.compile(rf"[A-Za-z0-9_-]{{{SHORTEST},}}")


class Secrets:
    """The secrets that were made so far, in clear text, and those in the database: hashes and digests."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def found_in(self, text: str, before: int) -> set[str]:
        """Return the secrets in *text*, without those that were made after the first *before*."""
        now = set(self.made[before:])
        hidden = {secret for secret in (*self.made[:before], *stored()) if secret not in now}
        if len(hidden) <= MANY:
            return {secret for secret in hidden if secret in text}
        words = set(WORD.findall(text))
        by_word = {max(WORD.findall(secret), key=len, default=secret): secret for secret in hidden}
        return {by_word[word] for word in words & by_word.keys()}


def stored() -> set[str]:
    """Return the values of all secret columns, past the count of queries of a test."""
    arms = [
        f"SELECT {quoted(str(field.column))} FROM {quoted(model._meta.db_table)}"
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.name in secret_columns.of(model)
        and field.name not in ("session_key", "session_data")  # A browser has its own.
    ]
    is_logged, connection.force_debug_cursor = connection.force_debug_cursor, False
    try:
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(arms))
            return {str(value) for (value,) in cursor if value and len(str(value)) >= SHORTEST}
    except (DatabaseError, RuntimeError):  # The test broke its transaction, or has no database.
        return set()
    finally:
        connection.force_debug_cursor = is_logged


@pytest.fixture(autouse=True)
def no_secret_in_answers(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Fail a test in which an answer holds a secret that it did not make."""
    known = Secrets()
    for owner, name in ((passwords, "generate"), (secrets, "token_hex"), (secrets, "token_urlsafe")):
        _note(monkeypatch, known, owner, name, str)
    _note(monkeypatch, known, api_keys, "create", lambda made: made.secret)
    _note(monkeypatch, known, tokens, "issue", str)
    send = Client.request

    def request(client: Client, **options: Any) -> Any:
        before = len(known.made)
        response: Any = send(client, **options)
        headers = {name: value for name, value in response.headers.items() if name != "Set-Cookie"}
        _check(known, f"{response.status_code} {headers}", before, options)
        if not response.streaming:
            _check(known, response.content.decode("utf-8", "replace"), before, options)
        elif not getattr(response, "is_async", False):
            response.streaming_content = _checked(known, response.streaming_content, before, options)
        return response

    monkeypatch.setattr(Client, "request", request)
    return known


def _note(monkeypatch: pytest.MonkeyPatch, known: Secrets, owner: Any, name: str, read: Any) -> None:
    """Note what the function *name* of *owner* returns."""
    make = getattr(owner, name)

    def noted(*args: Any, **options: Any) -> Any:
        made = make(*args, **options)
        if asyncio.iscoroutine(made):
            return later(made)
        known.made.append(read(made))
        return made

    async def later(made: Any) -> Any:
        found = await made
        known.made.append(read(found))
        return found

    monkeypatch.setattr(owner, name, noted)


def _checked(known: Secrets, parts: Any, before: int, options: dict[str, Any]) -> Iterator[bytes]:
    for part in parts:
        _check(known, part.decode("utf-8", "replace"), before, options)
        yield part


def _check(known: Secrets, text: str, before: int, options: dict[str, Any]) -> None:
    found = known.found_in(text, before)
    if found:
        place = f"{options.get('REQUEST_METHOD')} {options.get('PATH_INFO')}"
        pytest.fail(f"the answer to {place} holds a secret: {text[:2_000]}")
