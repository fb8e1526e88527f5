"""The reader's connection besides the ORM: the same file, the same server, the same TLS."""

from __future__ import annotations

import sqlite3

import pytest
from django.db import connections

from authsvc.freshness import reader
from config.settings import database

pytestmark = pytest.mark.usefixtures("nothing_pending")


@pytest.mark.sqlite_only
@pytest.mark.parametrize("name", ["a b", "a%20b", "a#b", "a?b", "ä"])
def test_the_reader_opens_the_file_that_the_orm_writes(loop, tmp_path, monkeypatch, name):
    """The path becomes a URI: special characters must be quoted, and no other file is opened or created."""
    path = tmp_path / f"{name}.sqlite3"
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE device (name)")
    file.commit()
    file.close()

    try:
        with monkeypatch.context() as patch:
            patch.setitem(connections["default"].settings_dict, "NAME", str(path))
            assert loop.run(reader.fetch("SELECT name FROM device")) == []
    finally:
        loop.run(reader.close())
        assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.sqlite_only
def test_the_reader_connects_as_the_orm_does():
    """libpq gets TLS and all other options of DATABASE_URL; those of Django are left out."""
    config = database("postgres://hub:s%40@db:5433/hub?sslmode=verify-full&sslrootcert=/ca.pem") | {
        "PORT": 5433
    }
    config["OPTIONS"] |= {"pool": True, "options": "-c search_path=hub"}

    arguments = reader.connection_arguments(config)

    assert (arguments["sslmode"], arguments["sslrootcert"]) == ("verify-full", "/ca.pem")
    assert (arguments["host"], arguments["port"], arguments["user"], arguments["password"], arguments["dbname"]) == (
        "db", 5433, "hub", "s@", "hub",
    )  # fmt: skip
    assert arguments["options"] == "-c search_path=hub -c statement_timeout=2000"
    assert "pool" not in arguments
