"""A test cannot use the database unless it asks for it, and the one that leaves rows is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from authsvc.models import Account
from rig.left_rows import LeftRows, watching

Write = Callable[[str], object]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Return a function that executes a statement over another connection; there are two tables."""
    with closing(sqlite3.connect(tmp_path / "rows.sqlite3", isolation_level=None)) as connection:
        connection.executescript(
            "CREATE TABLE account (id); CREATE TABLE policy (id); INSERT INTO policy VALUES (1)"
        )
        yield connection.execute


@pytest.fixture
def left_rows(tmp_path: Path, write: Write) -> Iterator[LeftRows]:
    with watching(str(tmp_path / "rows.sqlite3")) as left_rows:
        yield left_rows


def test_a_test_that_does_not_ask_for_the_database_cannot_use_it(django_db_setup: object) -> None:
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Account.objects.exists()


def test_nothing_is_found_if_rows_are_deleted_again(left_rows: LeftRows, write: Write) -> None:
    write("INSERT INTO account VALUES (1)")
    write("DELETE FROM account")

    assert left_rows.find() == {}


def test_rows_are_found_once(left_rows: LeftRows, write: Write) -> None:
    """The test after the one that left them is not accused."""
    write("INSERT INTO account VALUES (1), (2)")
    write("DELETE FROM policy")

    assert left_rows.find() == {"account": (0, 2), "policy": (1, 0)}
    assert left_rows.find() == {}


def test_a_new_table_and_a_deleted_one_are_found(left_rows: LeftRows, write: Write) -> None:
    write("CREATE TABLE device (id)")
    write("INSERT INTO device VALUES (1)")
    write("DROP TABLE policy")

    assert left_rows.find() == {"device": (0, 1), "policy": (1, 0)}


def test_rows_that_a_module_shares_are_expected_until_its_end(left_rows: LeftRows, write: Write) -> None:
    with left_rows.expected():
        write("INSERT INTO account VALUES (1)")
        assert left_rows.find() == {}

    assert left_rows.find() == {"account": (0, 1)}
