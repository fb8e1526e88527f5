"""SQLite's log removed while the server runs: later commits of other programs are noticed, or the answer is a fault."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from authsvc.freshness import reader, wal_index

pytestmark = pytest.mark.sqlite_only
ANOTHER_PROGRAM = """
import json, sqlite3, sys
for line in sys.stdin:
    file, *statements = json.loads(line)
    failure = None
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        for statement in statements:
            connection.execute(statement).fetchall()
    except sqlite3.Error as error:
        failure = str(error)
    connection.close()
    print(json.dumps(failure), flush=True)
"""
SWITCH_OFF = "UPDATE device SET active = 0"
_running: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[None]:
    """Keep one other process for all tests; it opens the file anew each time."""
    command = [sys.executable, "-S", "-c", ANOTHER_PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        _running.append(process)
        yield
        _running.remove(process)


def another_program(file: Path, *statements: str) -> None:
    """Run *statements* in another process: connections of one process share their open files.

    Raise sqlite3.OperationalError with the text of its error.
    """
    [process] = _running
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps([str(file), *statements]) + "\n")
    process.stdin.flush()
    failure = json.loads(process.stdout.readline())
    if failure:
        raise sqlite3.OperationalError(failure)


@pytest.fixture
def file(tmp_path) -> Path:
    file = tmp_path / "served" / "hub.sqlite3"
    file.parent.mkdir()
    another_program(
        file,
        "PRAGMA journal_mode=wal",
        "CREATE TABLE device (active int)",
        "INSERT INTO device VALUES (1)",
    )
    return file


@pytest.fixture(params=["mapped", "not mapped"])
def index(request, monkeypatch) -> str:
    """Select how versions are read: from the mapped index, or by a query each time, as without a mapping."""
    if request.param == "not mapped":
        monkeypatch.setattr(wal_index, "MAPS", "/nowhere")
    elif not sys.platform.startswith("linux"):
        pytest.skip("Only Linux lists the mappings of a process.")
    return str(request.param)


@pytest.fixture
def active(loop, file, index, monkeypatch) -> Iterator[Callable[[], int]]:
    """Return a function that reads as a question does: from a cache while the version is the same."""
    config = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}
    monkeypatch.setattr(reader.connections, "settings", {"default": config})
    loop.run(reader.close())
    cached: dict[tuple[int, int], int] = {}

    def read() -> int:
        version = reader.sqlite_version(config["NAME"])
        if version not in cached:
            [(cached[version],)] = loop.run(reader.fetch("SELECT active FROM device"))
        return cached[version]

    assert [read(), read()] == [1, 1]
    assert len(cached) == 1  # The log that the first read creates is not another version.
    yield read
    loop.run(reader.close())


def logs(file: Path) -> list[Path]:
    return [file.with_name(f"{file.name}-{rest}") for rest in ("wal", "shm")]


def remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


WRITE = ("INSERT INTO device VALUES (1)", "DELETE FROM device WHERE rowid > 1")


@pytest.mark.parametrize("removed", [("wal", "shm"), ("wal",), ("shm",)], ids="-".join)
@pytest.mark.parametrize("log", ["empty", "in use"])
def test_a_commit_after_the_log_was_removed(active, file, removed, log):
    if log == "in use":
        another_program(file, *WRITE)
        assert active() == 1
    remove(*(file.with_name(f"{file.name}-{rest}") for rest in removed))
    if (log, removed) == ("in use", ("wal",)):
        # The index refers to deleted pages: no program can read them until the last connection is closed.
        with pytest.raises(sqlite3.OperationalError):
            another_program(file, SWITCH_OFF)
        time.sleep(reader.LOG_SECONDS)
        assert active() == 1
    another_program(file, SWITCH_OFF)

    assert active() == 0


def test_logs_that_are_removed_one_after_another(active, file):
    """A question in between creates a new log, which is removed too."""
    for log in logs(file) * 2:
        remove(log)
        assert active() == 1
    another_program(file, SWITCH_OFF)

    assert active() == 0


@pytest.mark.parametrize("logs_too", [True, False])
def test_a_file_that_is_restored_with_its_time(active, file, tmp_path, logs_too):
    """`cp -p` writes into the same inode, and sets it to the time of the backup."""
    backup = tmp_path / "backup"
    another_program(file, f"VACUUM INTO '{backup}'", "PRAGMA wal_checkpoint(TRUNCATE)")
    another_program(backup, SWITCH_OFF)
    assert active() == 1
    shutil.copystat(file, backup)
    if logs_too:
        remove(*logs(file))

    shutil.copy2(backup, file)

    assert active() == 0


@pytest.mark.parametrize("how", ["folder copied", "folder moved", "file moved", "vacuum", "cut"])
def test_other_ways_to_remove_the_log(active, file, how):
    aside = file.parent.with_name("aside")
    if how == "folder copied":
        file.parent.rename(aside)
        shutil.copytree(aside, file.parent)
        another_program(file, SWITCH_OFF)
    elif how == "folder moved":
        file.parent.rename(aside)
        another_program(aside / file.name, SWITCH_OFF)
        aside.rename(file.parent)
    elif how == "file moved":
        another_program(file, "PRAGMA wal_checkpoint(TRUNCATE)")
        file.rename(aside)
        another_program(aside, SWITCH_OFF, "PRAGMA wal_checkpoint")
        aside.rename(file)
    elif how == "vacuum":
        another_program(file, f"VACUUM INTO '{aside}'")
        another_program(aside, SWITCH_OFF)
        remove(*logs(file))
        aside.rename(file)
    else:
        another_program(file, "PRAGMA wal_checkpoint")
        os.truncate(logs(file)[0], 0)
        another_program(file, SWITCH_OFF)

    assert active() == 0


def test_a_log_that_this_process_still_holds_is_a_fault(active, file):
    """All connections of a process share the index of the log, so another one keeps the old index open."""
    held = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, isolation_level=None)
    held.execute("SELECT * FROM device").fetchall()
    remove(*logs(file))
    another_program(file, SWITCH_OFF)

    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="still open in this process"):
            active()
    held.close()

    assert active() == 0


def test_sqlite_is_queried_only_after_a_commit_if_its_index_is_mapped(active, file, index, monkeypatch):
    monkeypatch.setattr(reader, "LOG_SECONDS", 60)
    another_program(file, *WRITE)
    assert active() == 1
    statements: list[str] = []
    reader._held.sqlite._connection.set_trace_callback(statements.append)

    assert [active() for _ in range(3)] == [1, 1, 1]

    assert statements == ["PRAGMA data_version"] * (0 if index == "mapped" else 3)
    another_program(file, SWITCH_OFF)
    assert active() == 0


@pytest.mark.parametrize(
    "name", ["a space.sqlite3", "\N{SNOWMAN}.sqlite3", "a\nbreak.sqlite3", "a (deleted).sqlite3"]
)
def test_the_index_of_a_file_with_an_odd_name(file, name):
    """A name that the kernel prints in another form has no header; no name gets a wrong one."""
    odd = file.rename(file.with_name(name))
    with closing(sqlite3.connect(odd, isolation_level=None)) as held:
        held.execute("SELECT * FROM device").fetchall()
        header = wal_index.header(f"{odd}-shm")
        if header is None:
            assert "\n" in name
            return
        before = header()
        assert before[:48] == before[48:]
        another_program(odd, *WRITE)
        assert header() != before


def test_an_index_that_is_mapped_twice_or_not_at_all_has_no_header(file):
    shared = logs(file)[1]
    assert wal_index.header(str(shared)) is None
    with closing(sqlite3.connect(file, isolation_level=None)) as held:
        held.execute("SELECT * FROM device").fetchall()
        assert wal_index.header(str(shared)) is not None
        with shared.open("r+b") as opened, mmap.mmap(opened.fileno(), 0):
            assert wal_index.header(str(shared)) is None
        remove(shared)
        assert wal_index.header(str(shared)) is None
