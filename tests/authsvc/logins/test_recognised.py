"""The cache of verified slow passwords that the processes of one server share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from passlib.hash import bcrypt

from authsvc.logins import recognised
from fleet.models import WeatherStationDevice
from rig import hub
from rig.cast import Cast
from rig.hub import CLIENT, ROOT

STORED = "$2b$04$" + "a" * 53
IN_ANOTHER_PROCESS = """
import json, sys
from authsvc.logins import recognised
stored, password, *wanted = json.loads(sys.argv[1])
recognised.add(stored, password)
print(json.dumps([recognised.holds(*pair) for pair in wanted]))
"""


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Create a block as the parent of the processes does, and yield its file descriptor."""
    monkeypatch.delenv(recognised.VARIABLE, raising=False)
    recognised._block.cache_clear()
    recognised.make()
    number = int(os.environ[recognised.VARIABLE])
    yield number
    del os.environ[recognised.VARIABLE]
    recognised._block.cache_clear()
    os.close(number)


def elsewhere(block: int, *pairs: object) -> list[bool]:
    """Add a pair in another process, and return whether the others are found there."""
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, json.dumps(pairs)]
    done = subprocess.run(
        command, cwd=ROOT, pass_fds=[block], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_password_verified_in_one_process_is_found_in_the_others(block):
    recognised.add(STORED, "ours")

    found = elsewhere(block, STORED, "theirs", [STORED, "ours"], [STORED, "other"], [f"{STORED}x", "ours"])

    assert found == [True, False, False]
    assert recognised.holds(STORED, "theirs")
    assert not recognised.holds(STORED, "nobody's")


def test_pairs_that_join_to_the_same_text_differ(block):
    recognised.add("ab", "c")

    assert recognised.holds("ab", "c")
    assert not recognised.holds("a", "bc")
    assert not recognised.holds("abc", "")


def test_it_holds_no_password_and_no_hash(block):
    recognised.add(STORED, "a password that is long enough to be found")

    held = os.pread(block, recognised.SIZE, 0)
    assert b"a password that" not in held
    assert STORED.encode() not in held


def test_a_full_row_replaces_one_of_its_own_and_accepts_no_other(block, monkeypatch):
    monkeypatch.setattr(recognised, "SLOTS", 16)
    for number in range(200):
        recognised.add(STORED, f"password {number}")
        assert recognised.holds(STORED, f"password {number}")

    assert not any(recognised.holds(STORED, f"stranger {number}") for number in range(500))
    assert 1 <= sum(recognised.holds(STORED, f"password {number}") for number in range(200)) <= 16


def test_without_a_block_each_process_has_its_own(monkeypatch):
    monkeypatch.delenv(recognised.VARIABLE, raising=False)
    recognised._block.cache_clear()

    recognised.add(STORED, "ours")

    assert not recognised.holds(STORED, "ours")


@pytest.mark.parametrize("number", ["", "x", "-1", "987654", "file"])
def test_a_variable_that_names_no_block_is_none(monkeypatch, tmp_path, number):
    """A program started by a worker inherits the variable without the block; another file may have its number."""
    with (tmp_path / "another").open("w+b") as another:
        another.write(b"x" * recognised.SIZE)
        another.flush()
        monkeypatch.setenv(recognised.VARIABLE, str(another.fileno()) if number == "file" else number)
        recognised._block.cache_clear()

        recognised.add(STORED, "ours")

        assert not recognised.holds(STORED, "ours")
        assert (tmp_path / "another").read_bytes() == b"x" * recognised.SIZE
    recognised._block.cache_clear()


@pytest.mark.servers
@pytest.mark.sqlite_first
def test_a_slow_hash_costs_one_verification_in_all_workers(station: Cast, token, tmp_path):
    """The second reconnect storm of an imported fleet is as cheap as with generated passwords."""
    WeatherStationDevice.objects.update(mqtt_password_hash=bcrypt.using(rounds=4).hash("imported"))
    fields = {"username": station.username, "clientid": station.username, "password": "imported"}
    with hub.gunicorn(tmp_path, WEB_CONCURRENCY="2") as url:
        answers = {
            CLIENT.post(f"{url}/mqtt/go-auth/user?k={token}", json=fields).status_code for _ in range(40)
        }

        assert answers == {200}
        # Each worker writes its numbers once a second, and any of them may be scraped.
        assert hub.eventually(lambda: {computed(url) for _ in range(10)} == {1.0}, 5)


def computed(url: str) -> float:
    lines = CLIENT.get(f"{url}/metrics").text.splitlines()
    return float(next(x for x in lines if x.startswith("devicehub_auth_slow_verifications_total")).split()[1])
