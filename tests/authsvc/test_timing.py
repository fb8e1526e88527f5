"""The time of a refused login does not show which names exist: measured at the entrance, on a real database."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time

import pytest

from authsvc import gateway
from authsvc.credentials import UNTIL_USED
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Request
from authsvc.freshness import changes, reader
from devicehub import provisioning
from rig.cast import Cast, provision

GO_AUTH = BY_NAME["go-auth"]
OK, DENIED = 200, 403
NEAR = 0.10  # Two times may differ by this share.
# The tenth of the answers that is fastest: other processes lengthen the rest, and an attacker would compare these too.
QUANTILE = 0.10
ROUNDS = 300  # Rounds of the first attempt; each further one has four times as many.
ATTEMPTS = 3  # A busy machine seldom disturbs three samples.
KINDS = ("cached", "wrong", "rotated", "disabled", "unusable", "no password", "account", "unknown")


@pytest.fixture
def cast(transactional_db: None) -> dict[str, Cast]:
    """Return the refused clients by kind; *cached* is a device that has logged in before."""
    cast = {why: provision(f"STATION-{number}") for number, why in enumerate(KINDS)}
    rows = type(cast["wrong"].device).objects
    rows.filter(pk=cast["disabled"].device.pk).update(is_active=False)
    rows.filter(pk=cast["unusable"].device.pk).update(mqtt_password_hash="!")
    rows.filter(pk=cast["no password"].device.pk).update(mqtt_password_hash="")
    provisioning.rotate_password(cast["rotated"].device, valid_until=UNTIL_USED)
    rows.filter(pk__in=[cast[why].device.pk for why in ("account", "unknown")]).delete()
    provisioning.create_account(cast["account"].username, ingest=False)
    return cast


@pytest.mark.sqlite_first  # On a busy machine the measurement takes minutes.
@pytest.mark.parametrize("password", ["x" * 43, ""], ids=["a password", "none"])
@pytest.mark.parametrize("listening", [False, True], ids=["deaf", "listening"])
def test_every_refusal_takes_as_long_as_that_of_a_stranger(cast, token, listening, password):
    """All existing ones have a hash of the generated scheme. SQLite has no notifications to listen to."""
    questions = {why: _login(token, who.username, password) for why, who in cast.items()}
    before = _login(token, cast["cached"].username, cast["cached"].password)

    with asyncio.Runner() as runner:
        try:
            runner.run(_begin(before, listening))
            for attempt in range(ATTEMPTS):
                times = runner.run(_fast_times(questions, ROUNDS * 4**attempt))
                far = [why for why in KINDS if abs(times[why] / times["unknown"] - 1) > NEAR]
                if not far:
                    break
        finally:
            runner.run(_end())

    assert not far, times


def _login(token: str, username: str, password: str) -> bytes:
    return json.dumps({"username": username, "clientid": username, "password": password, "k": token}).encode()


async def _ask(body: bytes) -> tuple[int, int]:
    """Return the status, and the nanoseconds that the answer took."""
    token = json.loads(body)["k"]
    request = Request("POST", f"k={token}", ((b"content-type", b"application/json"),), body, "user", "::1")
    since = time.perf_counter_ns()
    reply = await gateway.answer(request, GO_AUTH)
    return reply.status, time.perf_counter_ns() - since


async def _begin(login: bytes, listening: bool) -> None:
    if listening:
        changes.start()
        while changes.reason():
            await asyncio.sleep(0.02)
    assert (await _ask(login))[0] == OK


async def _fast_times(questions: dict[str, bytes], rounds: int) -> dict[str, int]:
    """Return the QUANTILE of the times of each kind, in nanoseconds.

    All kinds take turns in random order, so that disturbances affect all.
    """
    taken: dict[str, list[int]] = {why: [] for why in questions}
    order = list(questions)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            random.shuffle(order)
            for why in order:
                status, nanoseconds = await _ask(questions[why])
                assert status == DENIED
                taken[why].append(nanoseconds)
    finally:
        gc.enable()
    return {why: sorted(sample)[int(rounds * QUANTILE)] for why, sample in taken.items()}


async def _end() -> None:
    await changes.stop()
    await reader.close()
