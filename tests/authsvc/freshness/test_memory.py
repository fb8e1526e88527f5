"""Caches of files and passwords: they are never stale, and admit clients that were verified before."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authsvc import gateway, policy
from authsvc.core import authority, passwords
from authsvc.core.access import Client, LoginQuestion, Principal, Reason, Secret, Verdict
from authsvc.core.memory import MemoryDirectory
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Request
from authsvc.freshness import reader
from authsvc.logins import verifier
from authsvc.models import Grant, PolicyRevision
from authsvc.operation import metrics
from rig import hub

RIGHT = "the right password"


def verify(password, stored):
    """Verify *password* in a new attempt."""
    return verifier.Attempt(password).verify(password, stored)


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


class TestSqliteVersion:
    """The version changes in each way in which the data in the file can change."""

    @pytest.fixture
    def file(self, tmp_path) -> Path:
        return tmp_path / "hub.sqlite3"

    @pytest.fixture(params=["wal", "delete"])
    def writing(self, request, file) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute(f"PRAGMA journal_mode={request.param}")
        connection.execute("CREATE TABLE device (active int)")
        connection.execute("INSERT INTO device VALUES (1)")
        yield connection
        connection.close()

    @pytest.fixture(params=["path", "uri"])
    def look(self, request, file, writing, monkeypatch, run) -> Iterator[Callable[[], tuple[Any, Any]]]:
        name = str(file) if request.param == "path" else f"{file.as_uri()}?mode=rw"
        config = {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
        monkeypatch.setattr(reader.connections, "settings", {"default": config})
        run(reader.close())

        def look() -> tuple[Any, Any]:
            version = reader.sqlite_version(name)
            return version, run(reader.fetch("SELECT active FROM device"))

        yield look
        run(reader.close())

    @staticmethod
    def backup(file: Path) -> Path:
        """Return a copy of the present file, in which the device is still active."""
        copy = file.with_name("backup")
        with sqlite3.connect(file, isolation_level=None) as connection:
            connection.execute("VACUUM INTO ?", [str(copy)])
        connection.close()
        return copy

    def test_it_stays_while_nothing_changes(self, look):
        assert look() == look()

    @pytest.mark.parametrize("how", ["mv", "cp", "restore", "symlink", "removed"])
    def test_a_backup_that_is_put_back_is_read(self, look, writing, file, how):
        backup = self.backup(file)
        writing.execute("UPDATE device SET active = 0")
        writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = look()
        assert before[1] == [(0,)]
        if how == "restore":
            with sqlite3.connect(backup) as source:
                source.backup(writing)
            source.close()
        else:
            writing.close()
            if how == "cp":
                with file.open("r+b") as target, backup.open("rb") as source_file:
                    shutil.copyfileobj(source_file, target)
                    target.truncate()
            elif how == "symlink":
                link = file.with_name("link")
                link.symlink_to(backup)
                os.replace(link, file)
            else:
                for rest in ("-wal", "-shm"):
                    file.with_name(file.name + rest).unlink(missing_ok=True)
                if how == "removed":
                    file.unlink()
                    with pytest.raises(sqlite3.OperationalError):
                        reader.sqlite_version(str(file))
                os.replace(backup, file)

        after = look()

        assert after[0] != before[0]
        assert after[1] == [(1,)]

    def test_a_file_that_is_replaced_while_it_is_opened_is_noticed(
        self, look, writing, file, monkeypatch, run
    ):
        """The file is replaced after SQLite has opened it and before its identity is read again."""
        backup = self.backup(file)
        writing.execute("UPDATE device SET active = 0")
        writing.close()
        run(reader.close())
        connect = sqlite3.connect

        def slow(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            monkeypatch.setattr(sqlite3, "connect", connect)
            connection.execute("SELECT * FROM device").fetchall()
            for rest in ("-wal", "-shm"):
                file.with_name(file.name + rest).unlink(missing_ok=True)
            os.replace(backup, file)
            return connection

        monkeypatch.setattr(sqlite3, "connect", slow)
        look()

        assert look()[1] == [(1,)]

    def test_no_read_stays_open(self, look, writing):
        """An open read would prevent checkpoints of the log, and would return old rows."""
        look()
        writing.execute("UPDATE device SET active = 0")

        assert writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert look()[1] == [(0,)]


def test_a_restored_policy_is_not_taken_for_the_cached_one(transactional_db, loop):
    """The backup is older, and with the next change its revision would reach the cached number."""

    def filters() -> list[str]:
        current = loop.run(policy.current())
        return [grant.filter for grant in current.rules.grants.get("everyone", ())]

    def allow(text: str) -> Grant:
        return Grant.objects.create(subject="everyone", actions="publish", filter=text)

    allow("always")
    before = PolicyRevision.objects.get().revision
    removed = allow("removed/later")
    assert filters() == ["always", "removed/later"]

    removed.delete()
    time.sleep(0.002)  # A restore takes longer than the millisecond that the revision counts on SQLite.
    PolicyRevision.objects.update(revision=before)
    allow("new")

    assert filters() == ["always", "new"]


def test_a_body_that_is_too_long_is_not_an_empty_one(token, station, loop):
    """It is dropped, so a GET with one must not get the cached answer of a GET without a body."""
    fields = f"username={station.username}&clientid={station.username}&acc=2&topic={station.topic('data')}"

    def ask(oversized: bool) -> int:
        request = Request("GET", f"k={token}&{fields}", question="acl", peer="::1", oversized=oversized)
        return int(loop.run(gateway.answer(request, BY_NAME["go-auth"])).status)

    assert [ask(False), ask(False), ask(True), ask(False)] == [200, 200, 403, 200]


def slow_hash(number: int) -> str:
    """Return a stored slow hash, a different one for each *number*."""
    return f"PBKDF2$sha256$1$c2FsdA==${number:043d}="


@pytest.fixture
def gate(monkeypatch) -> Iterator[threading.Event]:
    """Return an event until which slow verifications wait."""
    gate = threading.Event()

    def verify(password: str, stored: str) -> bool:
        if not passwords.is_fast(stored):
            assert gate.wait(10)
        return password == RIGHT

    monkeypatch.setattr(passwords, "verify", verify)
    yield gate
    gate.set()
    verifier.stop()


async def full() -> list[asyncio.Future[bool]]:
    """Start as many guesses at other names as can wait; the first ones are in the threads."""
    waiting = [
        asyncio.ensure_future(verify(f"guess {number}", slow_hash(100 + number)))
        for number in range(verifier.MAX_WAITING)
    ]
    await asyncio.sleep(0)
    assert verifier.waiting() == verifier.MAX_WAITING
    async with asyncio.timeout(5):
        while sum(future.running() for future in verifier._running.values()) < verifier.THREADS:
            await asyncio.sleep(0.001)
    return waiting


class TestVerifier:
    def test_a_cached_password_is_accepted_during_a_flood(self, gate, run):
        """Guesses at other names take every place, and the budget of the name is used up."""

        async def story() -> None:
            gate.set()
            assert await verify(RIGHT, slow_hash(1))
            for number in range(verifier.MAX_A_MINUTE - 1):
                assert not await verify(f"wrong {number}", slow_hash(1))
            with pytest.raises(verifier.Overloaded):
                await verify("one more", slow_hash(1))
            gate.clear()
            waiting = await full()

            assert await asyncio.wait_for(verify(RIGHT, slow_hash(1)), 1)
            with pytest.raises(verifier.Overloaded):
                await verify(RIGHT, slow_hash(2))
            gate.set()
            assert await asyncio.gather(*waiting) == [False] * verifier.MAX_WAITING

        run(story())

    def test_a_cached_previous_password_is_accepted_during_a_flood(self, gate, run):
        """A person chose the current one; its hash is slow, and no verification of it can start now."""
        previous = Secret(passwords.hash_generated(RIGHT))
        principal = Principal("account/backend", "backend", (Secret(slow_hash(1)), previous))
        directory = MemoryDirectory([principal])

        async def login(password: str) -> Verdict:
            question = LoginQuestion(Client("backend", None), password)
            return await authority.decide(question, authority.Rules(), directory, verify=verify)

        async def story() -> None:
            waiting = await full()

            assert (await login(RIGHT)).decisions[0] == (True, Reason.CREDENTIALS, "", "")
            with pytest.raises(verifier.Overloaded):
                await login("wrong")
            gate.set()
            await asyncio.gather(*waiting)

        run(story())

    def test_the_same_attempt_is_made_once(self, gate, run):
        """A broker asks again after a time-out; all its requests get the result of one verification."""

        async def story() -> None:
            attempts = [asyncio.ensure_future(verify(RIGHT, slow_hash(1))) for _ in range(50)]
            await asyncio.sleep(0)
            assert verifier.waiting() == 1
            gate.set()
            assert await asyncio.gather(*attempts) == [True] * 50

        run(story())

    @pytest.mark.parametrize("password", [RIGHT, "wrong"])
    def test_a_result_is_cached_although_the_request_is_gone(self, gate, run, password):
        async def story() -> None:
            attempt = asyncio.ensure_future(verify(password, slow_hash(1)))
            await asyncio.sleep(0)
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            gate.set()
            while verifier.waiting():
                await asyncio.sleep(0.01)
            waiting = await full_again()

            assert await asyncio.wait_for(verify(password, slow_hash(1)), 1) is (password == RIGHT)
            gate.set()
            await asyncio.gather(*waiting)

        async def full_again() -> list[asyncio.Future[bool]]:
            gate.clear()
            return await full()

        run(story())

    def test_an_error_in_the_thread_is_raised_in_the_request(self, gate, run, monkeypatch):
        def broken(password: str, stored: str) -> bool:
            raise MemoryError

        monkeypatch.setattr(passwords, "verify", broken)
        for _ in range(2):
            with pytest.raises(MemoryError):
                run(verify(RIGHT, slow_hash(1)))
        assert verifier.waiting() == 0

    def test_a_stop_cancels_waiting_verifications(self, gate, run):
        async def story() -> None:
            waiting = await full()
            verifier.stop()
            ended = await asyncio.gather(*waiting[verifier.THREADS :], return_exceptions=True)
            assert {type(end) for end in ended} == {asyncio.CancelledError}
            gate.set()
            await asyncio.gather(*waiting[: verifier.THREADS])
            assert await verify(RIGHT, slow_hash(1))  # The next one works.

        run(story())


FORKS = """
import asyncio, os, sqlite3
import django
django.setup()
from authsvc.freshness import changes, reader
from authsvc.logins import verifier
from django.db import connections
NAME = connections.settings["default"]["NAME"]
stored = "PBKDF2$sha256$1$c2FsdA==$" + "0" * 43 + "="
asyncio.run(verifier.Attempt("guess").verify("guess", stored))
before = reader.sqlite_version(NAME)
changes._listener = object()
child = os.fork()
if child == 0:
    assert reader.sqlite_version(NAME)[0] != before[0]
    assert changes._listener is None
    assert not asyncio.run(asyncio.wait_for(verifier.Attempt("another").verify("another", stored), 5))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert reader.sqlite_version(NAME) == before
print("both")
"""


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_a_fork_opens_its_own_connection_and_threads(tmp_path):
    """With preload_app gunicorn forks a process that may have answered questions before."""
    env = hub.environment(DATABASE_URL=f"sqlite:///{tmp_path}/hub.sqlite3")
    command = [sys.executable, "-W", "error", "-c", FORKS]

    done = subprocess.run(command, cwd=hub.ROOT, env=env, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("both\n", "")


def test_a_scrape_ignores_files_of_other_versions(tmp_path, monkeypatch, run):
    """The folder may be the operator's, with files of another version in it."""
    monkeypatch.setenv(metrics.FOLDER, str(tmp_path))
    metrics.publish()
    mine = tmp_path / f"{os.getpid()}.json"
    (tmp_path / "2147483646.json").write_text(json.dumps(json.loads(mine.read_text()) | {"bounds": [1]}))
    (tmp_path / "2147483645.new").write_text("{")
    (tmp_path / "notes.json").write_text("[]")
    (tmp_path / "2147483644.json").symlink_to(tmp_path / "gone")

    assert run(metrics.report()).status == 200
