"""The keys of several query sets are found by one statement, also of those that are ordered and cut."""

from authsvc.models import Account
from devicehub.db import together


def test_each_query_set_keeps_its_condition_its_order_and_its_limit(db, django_assert_num_queries):
    keys = {name: Account.objects.create(username=name).pk for name in ("a1", "a2", "a3", "b1")}
    accounts = Account.objects.order_by("-username")

    with django_assert_num_queries(1):
        found = together.keys([accounts.filter(username__startswith="a")[:2], accounts.filter(username="b1")])

    assert sorted(found) == sorted(keys[name] for name in ("a3", "a2", "b1"))


def test_without_a_query_set_there_is_no_statement(db, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert together.keys([]) == []
