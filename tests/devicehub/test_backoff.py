"""The pauses of a back-off."""

import random

import pytest

from devicehub.backoff import Backoff
from devicehub.commands import sender, transitions
from devicehub.mqtt.listening import reconnection
from devicehub.mqtt.swarm import swarm
from devicehub.removal import retained
from devicehub.worker import loop

MANY = 10_000


def test_the_last_step_counts_from_there_on():
    backoff = Backoff((1, 2, 5))

    assert [backoff.after(failures) for failures in (1, 2, 3, 4, MANY)] == [1, 2, 5, 5, 5]


def test_steps_double_up_to_the_longest():
    assert Backoff.doubling(1, 8).steps == (1, 2, 4, 8)
    assert Backoff.doubling(5, 5).steps == (5,)


def test_chance_takes_off_a_part_of_the_pause():
    backoff, dice = Backoff.doubling(1, 8, spread=0.5), random.Random(1)

    pauses = [backoff.after(4, dice.uniform) for _ in range(100)]

    assert 4 <= min(pauses) < 4.5
    assert 7.5 < max(pauses) <= 8


@pytest.mark.parametrize(
    ("backoff", "first", "most"),
    [
        (transitions.RETRY, 1, 30),
        (sender.HOLD_OFF, 1, 30),
        (retained.RETRY, 60, 24 * 3600),
        (loop.RETRY, 0.5, 5),
        (reconnection.AWAY, 1, 8),
        (reconnection.EVICTED, 2, 30),
        (swarm.PAUSES, 1, 30),
    ],
)
def test_pauses_keep_their_bounds_and_grow(backoff, first, most):
    """The documentation promises them."""
    assert backoff.steps[0] == first
    assert backoff.after(MANY, max) == most
    assert list(backoff.steps) == sorted(backoff.steps)
