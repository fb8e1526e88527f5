"""EMQX 4: names with a dollar sign, and the two numbers of access."""

from __future__ import annotations

import itertools

import pytest

from authsvc.dialects.base import FORM, JSON
from authsvc.models import Account
from rig.oracles import reads_as_allow, reads_as_deny
from rig.questions import Root, by_access, good

pytestmark = pytest.mark.sqlite_first  # Its questions send the SQL of test_cases.py.

# ---------------------------------------------------------------- EMQX 4


class TestEMQX4:
    @pytest.fixture
    def unchecked(self, monkeypatch):
        """Disable validation, so that names can be stored that only SQL could write."""
        monkeypatch.setattr("authsvc.models.validate_username", lambda _name: None)

    @pytest.fixture
    def may(self, question):
        """Return a function that asks by JSON and by form, whose answers must agree; None leaves a field out."""

        def one(path, who, **more):
            fields = {k: v for k, v in (good(f"emqx4/{path}", who) | more).items() if v is not None}
            json_reply, form_reply = (question(f"emqx4/{path}", fields, content_type=t) for t in (JSON, FORM))
            assert json_reply == form_reply
            return reads_as_allow(f"emqx4/{path}", json_reply)

        return one

    @pytest.mark.parametrize("absent", ["undefined", "null", "None", "", None])
    def test_a_missing_name_or_password_is_denied(self, may, station, absent, unchecked):
        """An absent value is the text `undefined`, or `null`; an account of that name must not match."""
        Account.objects.bulk_create([Account(username=name) for name in ("undefined", "null", "None")])
        try:
            for path, name in itertools.product(("auth", "superuser", "acl"), ("username", "clientid")):
                assert not may(path, station, **{name: absent}), (path, name)
            assert not may("auth", station, password=absent)
            assert not may("auth", station, username=absent, clientid=absent, password=absent)
            assert not may("superuser", station, username=absent, clientid=absent)
            assert not may("acl", station, username=absent, clientid=absent)
        finally:
            Account.objects.filter(username__in=("undefined", "null", "None")).delete()

    @pytest.mark.parametrize("prefix", ["$", "$SYS/", "$share/g/"])
    def test_a_name_with_a_dollar_is_refused_at_login(self, may, station, root, prefix):
        """EMQX asks no further question about such a client: its actions end in acl_nomatch."""
        for who in (station, root):
            assert may("auth", who)
            assert not may("auth", who, username=prefix + who.username)
            assert not may("auth", who, clientid=prefix + who.username, username=prefix + who.username)

    def test_an_account_with_a_dollar_is_refused_too(self, may, unchecked):
        account = Account(username="$dollar", is_superuser=True)
        who = Root("$dollar", account.generate_password())
        Account.objects.bulk_create([account])
        try:
            assert not any(may(path, who) for path in ("auth", "superuser", "acl"))
        finally:
            Account.objects.filter(username="$dollar").delete()

    @pytest.mark.parametrize(
        "topic", ["$SYS/brokers", "$SYS/#", "$share/g/{}", "$queue/{}", "$CONTROL/x", "$"]
    )
    def test_a_device_gets_no_topic_with_a_dollar(self, may, station, topic):
        """EMQX has removed `$share/<group>/` and `$queue/`, so a topic with these is an ordinary topic."""
        assert may("acl", station)
        assert not may("acl", station, topic=topic.format(station.topic("data")))
        assert topic.startswith("$share") or not may(
            "acl", station, access="1", topic=topic.format(station.topic("cmd"))
        )

    def test_access_1_subscribes_and_2_publishes(self, may, station):
        assert may("acl", station, access="2", topic=station.topic("data"))
        assert may("acl", station, access="1", topic=station.topic("cmd"))
        assert not may("acl", station, access="1", topic=station.topic("data"))
        assert not may("acl", station, access="2", topic=station.topic("cmd"))

    @by_access
    def test_any_other_access_is_denied(self, question, station, access):
        assert reads_as_deny(
            "emqx4/acl", question("emqx4/acl", good("emqx4/acl", station) | {"access": access})
        )

    def test_no_answer_is_the_word_that_passes_the_question_on(self, question, station):
        for path in ("auth", "superuser", "acl"):
            for name in (station.username, "stranger"):
                fields = good(f"emqx4/{path}", station) | {"username": name}
                assert question(f"emqx4/{path}", fields).body.strip() != b"ignore"
