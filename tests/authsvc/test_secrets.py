"""Secrets reach no log, no fault page and no printed value."""

from __future__ import annotations

import json

import pytest

from authsvc import policy
from authsvc.core import authority
from authsvc.core.access import LoginQuestion, Principal, Reason, Secret, Verdict, deny
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Request
from authsvc.models import Broker, Denial
from authsvc.operation import denials
from rig.asking import broken, everything_logged

pytestmark = pytest.mark.usefixtures("nothing_pending")


# ---------------------------------------------------------------- secrets


class TestSecrets:
    SECRET = "a-secret-to-look-for"

    def test_none_is_in_the_denials(self, ask, send, entrance, station, token):
        ask("go-auth/user", username=station.username, clientid=station.username, password=self.SECRET)
        ask("go-auth/user", username="stranger", clientid="c", password=self.SECRET)
        ask("go-auth/acl", proof=self.SECRET, username="a", clientid="c", acc=2, topic="t")
        ask("go-auth/user", username=station.username, clientid="x", password=station.password)
        send(entrance, "POST", f"/mqtt/go-auth/user?k={token}", content=self.SECRET.encode())
        denials.flush()

        rows = json.dumps(list(Denial.objects.values()), default=str)
        assert Denial.objects.count() >= 4
        for secret in (self.SECRET, station.password, token):
            assert secret not in rows

    def test_none_is_in_the_log_of_a_fault(self, ask, station, token, caplog, monkeypatch):
        monkeypatch.setattr(authority, "decide", broken)
        with everything_logged(caplog):
            ask("go-auth/user", username=station.username, clientid=station.username, password=self.SECRET)
            ask("rabbitmq/user", username=station.username, client_id="c", password=self.SECRET)

        assert "auth.fault" in caplog.text
        assert self.SECRET not in caplog.text
        assert token not in caplog.text

    @pytest.mark.parametrize("dialect", ["go-auth", "emqx", "amqtt"])
    def test_none_is_in_the_repr_of_a_question(self, dialect):
        """Debuggers, error trackers and failed asserts print it."""
        fields = {"username": "u", "clientid": "c", "client_id": "c", "password": self.SECRET}
        name = next(iter(BY_NAME[dialect].questions))
        request = Request(
            "POST",
            headers=((b"content-type", b"application/json"),),
            body=json.dumps(fields).encode(),
            question=name,
        )
        question = BY_NAME[dialect].questions[name](request)

        assert isinstance(question, LoginQuestion)
        assert question.password == self.SECRET
        for shown in (question, deny(Reason.WRONG_PASSWORD, None, question)):
            assert self.SECRET not in repr(shown)

    def test_none_is_in_the_repr_of_a_request(self):
        for request in (
            Request("POST", query=f"k={self.SECRET}"),
            Request("POST", path_token=self.SECRET),
            Request("POST", headers=((b"authorization", f"Bearer {self.SECRET}".encode()),)),
            Request("POST", headers=((b"x-broker-secret", self.SECRET.encode()),)),
            Request("POST", body=json.dumps({"password": self.SECRET}).encode()),
        ):
            assert self.SECRET not in repr(request)

    def test_none_is_in_the_repr_of_a_principal(self):
        principal = Principal("account/a", "a", (Secret(self.SECRET, 1.0), Secret(self.SECRET)))

        for shown in (principal, principal.secrets, principal.secrets[0], Verdict((), principal)):
            assert self.SECRET not in repr(shown)
            assert self.SECRET not in f"{shown}"

    def test_none_is_in_the_repr_of_cached_objects(self, loop, token):
        digest = Broker.objects.get().token_digest
        now = loop.run(policy.current())

        assert digest in now.callers
        assert digest not in repr(now)
        for shown in (repr(Broker.objects.get()), str(Broker.objects.get())):
            assert digest not in shown
