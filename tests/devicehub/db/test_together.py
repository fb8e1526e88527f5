"""The rows of several query sets are found by one statement, also of those that are ordered and cut."""

from authsvc.models import Account
from devicehub.db import together


def test_each_query_set_keeps_its_condition_its_order_and_its_limit(db, django_assert_num_queries):
    for name in ("a1", "a2", "a3", "b1"):
        Account.objects.create(username=name)
    accounts = Account.objects.order_by("-username").values("username")

    with django_assert_num_queries(1):
        arms = [accounts.filter(username__startswith="a")[:2], accounts.filter(username="b1")]
        found = together.first(arms, "username DESC", 9)

    assert found == [("b1",), ("a3",), ("a2",)]


def test_the_whole_is_cut_too(db):
    for name in ("a1", "b1", "c1"):
        Account.objects.create(username=name)
    arms = [Account.objects.filter(username=name).values("username") for name in ("a1", "b1", "c1")]

    assert together.first(arms, "username", 2) == [("a1",), ("b1",)]


def test_without_a_query_set_there_is_no_statement(db, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert together.first([], "username", 9) == []
