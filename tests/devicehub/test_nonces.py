"""Forms that make a secret work once."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from devicehub import nonces

pytestmark = pytest.mark.django_db


@pytest.fixture
def mara():
    return User.objects.create_user("mara")


def test_a_form_works_once(mara):
    number = nonces.issue("rotate:weatherstation/S-1", mara)

    nonces.use(number, "rotate:weatherstation/S-1", mara)
    with pytest.raises(nonces.FormUsed):
        nonces.use(number, "rotate:weatherstation/S-1", mara)


def test_a_form_of_another_page_or_user_or_time_does_not_work(mara, monkeypatch):
    number = nonces.issue("rotate:weatherstation/S-1", mara)

    for purpose, user in (
        ("revoke:weatherstation/S-1", mara),
        ("rotate:weatherstation/S-1", User.objects.create_user("eve")),
    ):
        with pytest.raises(nonces.FormExpired):
            nonces.use(number, purpose, user)
    with pytest.raises(nonces.FormExpired):
        nonces.use(f"{number}x", "rotate:weatherstation/S-1", mara)
    monkeypatch.setattr(nonces, "VALID", -nonces.VALID)
    with pytest.raises(nonces.FormExpired):
        nonces.use(number, "rotate:weatherstation/S-1", mara)


def test_a_transaction_that_fails_gives_the_number_back(mara):
    number = nonces.issue("add", mara)

    with pytest.raises(RuntimeError), transaction.atomic():
        nonces.use(number, "add", mara)
        raise RuntimeError

    nonces.use(number, "add", mara)
