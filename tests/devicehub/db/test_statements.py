"""The helpers for SQL without the ORM return the same on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.db import connection

from authsvc.models import Account
from devicehub.db import statements
from devicehub.db.statements import PerVendor, as_time, execute, execute_many, query, query_value, quoted

TABLE = Account._meta.db_table
BERLIN = timezone(timedelta(hours=2))
MOMENT = datetime(2026, 7, 1, 1, 30, 0, 250, tzinfo=BERLIN)


@pytest.fixture
def accounts(db):
    Account.objects.create(username="backend")
    Account.objects.create(username="dashboard")


def test_a_query_gives_rows_and_a_value(accounts):
    assert query(f"SELECT username FROM {TABLE} ORDER BY username") == [("backend",), ("dashboard",)]
    assert query_value(f"SELECT username FROM {TABLE} WHERE username = %s", ["backend"]) == "backend"


def test_a_value_of_no_row_is_none(accounts):
    assert query_value(f"SELECT username FROM {TABLE} WHERE username = %s", ["stranger"]) is None


def test_execute_counts_the_rows_that_it_changed(accounts):
    assert execute(f"UPDATE {TABLE} SET is_active = %s", [False]) == 2
    assert execute(f"UPDATE {TABLE} SET is_active = %s WHERE username = %s", [True, "stranger"]) == 0


def test_execute_many_takes_places_and_names(accounts):
    execute_many(f"UPDATE {TABLE} SET username = %s WHERE username = %s", [("b", "backend")])
    execute_many(
        f"UPDATE {TABLE} SET username = %(new)s WHERE username = %(old)s", [{"new": "d", "old": "dashboard"}]
    )
    execute_many("no statement at all", [])

    assert set(Account.objects.values_list("username", flat=True)) == {"b", "d"}


def test_a_time_is_the_one_that_django_wrote(accounts):
    Account.objects.update(created_at=MOMENT)

    assert query_value(f"SELECT count(*) FROM {TABLE} WHERE created_at = %s", [as_time(MOMENT)]) == 2
    assert query_value(f"SELECT count(*) FROM {TABLE} WHERE created_at < %s", [as_time(MOMENT)]) == 0
    later = MOMENT + timedelta(microseconds=1)
    assert query_value(f"SELECT count(*) FROM {TABLE} WHERE created_at < %s", [as_time(later)]) == 2


def test_a_time_on_sqlite_is_in_utc_and_has_no_zone():
    write = statements.TIME_WRITERS._by_vendor["sqlite"]

    assert write(MOMENT) == "2026-06-30 23:30:00.000250"
    assert write(MOMENT.astimezone(UTC)) == "2026-06-30 23:30:00.000250"


@pytest.mark.django_db  # A test without it runs on SQLite only.
def test_each_database_gets_its_own_form():
    assert PerVendor(sqlite="one", postgresql="other")() == (
        "one" if connection.vendor == "sqlite" else "other"
    )


def test_names_are_quoted():
    assert quoted("order") == '"order"'
