"""Clients with a token in place of a password: the identity in it, and the places where it is read."""

from __future__ import annotations

import base64
import itertools
import json
from urllib.parse import urlencode

import pytest

from authsvc import conf
from authsvc.core import tokens
from authsvc.dialects.base import FORM, JSON, MAX_BODY
from authsvc.models import Account
from fleet.models import WeatherStationDevice
from rig.oracles import reads_as_allow, reads_as_deny
from rig.questions import BODIES, Root, good, token_of

pytestmark = pytest.mark.sqlite_first  # Its questions send the SQL of test_cases.py.

# ---------------------------------------------------------------- JWT: the username is a token


class TestJWT:
    @pytest.fixture
    def ask_with(self, post, entrance, world):
        """Return a function that asks with given headers, and the token of the broker in the path by default."""

        def one(path, body=b"null", *, authorization=(), proof=None, **options):
            url = f"/mqtt/k/{world.token}/jwt/{path}" if proof is None else f"/mqtt/{proof}jwt/{path}"
            headers = [(b"content-type", JSON.encode())]
            headers += [(b"authorization", value.encode("latin-1")) for value in authorization]
            reply = post(entrance, url, headers=[*headers, *options.pop("headers", ())], body=body, **options)
            assert reply.status == 200 or reads_as_deny(f"jwt/{path}", reply)
            return reply.status == 200

        return one

    @pytest.fixture
    def bearer(self, world):
        return f"Bearer {world.bearers['station']}"

    @pytest.mark.parametrize("about", ["user", "superuser", "acl"])
    def test_a_body_that_names_somebody_else_is_denied(
        self, question, world, station, neighbour, root, about
    ):
        """For all pairs of clients: the token identifies the client, and the body may only repeat it."""
        path = f"jwt/{about}"
        cast = {"station": station, "neighbour": neighbour, "root": root}
        for (holder, who), named in itertools.product(
            cast.items(), [*cast.values(), Root("x", ""), Root("", "")]
        ):
            for content_type in (JSON, FORM):
                fields = good(path, who) | {"username": named.username}
                reply = question(path, fields, bearer=world.bearers[holder], content_type=content_type)
                may = who is named and (about != "superuser" or who is root)
                assert reads_as_allow(path, reply) if may else reads_as_deny(path, reply)

    @pytest.mark.parametrize("body", [b"", b"null", b"{}", b" null\n"])
    def test_a_user_call_needs_no_body(self, ask_with, world, bearer, body):
        assert ask_with("user", body, authorization=[bearer])
        assert ask_with("superuser", body, authorization=[f"Bearer {world.bearers['root']}"])
        assert not ask_with("superuser", body, authorization=[bearer])
        assert not ask_with("acl", body, authorization=[bearer])

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_a_body_that_cannot_be_read_is_denied(self, ask_with, bearer, method):
        """It could name another client."""
        names_nobody = {b"", b"null", b"{} ", b'{"acc": -0}'}
        for body in BODIES:
            answer = ask_with("user", body, authorization=[bearer], method=method)
            assert answer is (body in names_nobody), body[:40]

    def test_a_body_that_is_too_long_is_denied(self, ask_with, bearer, neighbour):
        """It is dropped unread, so it could name another client."""
        named = json.dumps({"username": neighbour.username}).encode()

        assert not ask_with("user", named, authorization=[bearer])
        assert not ask_with("user", named + b" " * MAX_BODY, authorization=[bearer])
        assert not ask_with("user", b"null" + b" " * MAX_BODY, authorization=[bearer])

    def test_a_query_of_a_get_cannot_name_another_client(self, ask_with, bearer, station, neighbour):
        """The fields of a GET are in the query, and its `username` is checked as in a body."""
        for path in ("user", "acl"):
            for who, may in ((station, True), (neighbour, False)):
                fields = good(f"jwt/{path}", station) | {"username": who.username}
                query = urlencode(fields).encode()
                answer = ask_with(path, b"", authorization=[bearer], method="GET", query=query)
                assert answer is may, (path, who.username)

    def test_a_token_of_another_principal_opens_only_its_own(self, question, world, station, neighbour):
        fields = {k: v for k, v in good("jwt/acl", station).items() if k != "username"}

        assert reads_as_allow("jwt/acl", question("jwt/acl", fields, bearer=world.bearers["station"]))
        for holder in ("neighbour", "stranger"):
            assert reads_as_deny("jwt/acl", question("jwt/acl", fields, bearer=world.bearers[holder]))
        for other in ({"clientid": neighbour.username}, {"topic": neighbour.topic("data")}):
            theirs = fields | other
            assert reads_as_deny("jwt/acl", question("jwt/acl", theirs, bearer=world.bearers["station"]))

    def test_a_token_is_there_once(self, ask_with, world, bearer):
        """Two headers are joined, and two tokens in one count as none, also two equal ones."""
        token, other = world.bearers["station"], f"Bearer {world.bearers['neighbour']}"

        assert ask_with("user", authorization=[bearer])
        for twice in ([bearer, bearer], [bearer, other], [other, bearer], [bearer, "x"], ["x", bearer]):
            assert not ask_with("user", authorization=twice)
        for joined in (f"{bearer} {token}", f"{bearer},{token}", f"{bearer}, {bearer}", f"Bearer {bearer}"):
            assert not ask_with("user", authorization=[joined])

    def test_only_the_bearer_header_holds_a_token(self, ask_with, world, bearer):
        token = world.bearers["station"]
        basic = base64.b64encode(f"x:{token}".encode()).decode()

        for authorization in (
            f"Basic {basic}",
            f"Basic {token}",
            f"Token {token}",
            f"Digest {token}",
            token,
            f"Bearer{token}",
            f"Bearer:{token}",
            f"Bearer\t{token}",
            "Bearer",
            "Bearer ",
            "",
        ):
            assert not ask_with("user", authorization=[authorization]), authorization
        assert not ask_with("user")
        # The scheme is case-insensitive (RFC 7235).
        for authorization in (f"bearer {token}", f"BEARER  {token} "):
            assert ask_with("user", authorization=[authorization])

    def test_a_token_elsewhere_than_in_the_header_is_not_read(self, ask_with, world, station):
        token = world.bearers["station"]

        for name in ("access_token", "token", "jwt", "bearer", "authorization", "username", "password"):
            query = f"{name}={token}".encode()
            for method, body in (("POST", b"null"), ("GET", b"")):
                assert not ask_with("user", body, query=query, method=method)
            body = json.dumps({name: token}).encode()
            assert not ask_with("user", body)
        assert not ask_with("user", query=b"k=" + token.encode(), proof="")
        for name in (b"x-broker-secret", b"x-authorization", b"proxy-authorization", b"cookie"):
            assert not ask_with("user", headers=[(name, f"Bearer {token}".encode())])
            assert not ask_with("user", headers=[(name, token.encode())])

    @pytest.mark.parametrize("about", ["user", "acl"])
    def test_the_token_of_a_disabled_device_is_denied(self, question, station, about):
        path = f"jwt/{about}"
        assert reads_as_allow(path, question(path, good(path, station)))

        WeatherStationDevice.objects.filter(pk=station.device.pk).update(is_active=False)
        refused = question(path, good(path, station))
        WeatherStationDevice.objects.update(is_active=True)

        assert reads_as_deny(path, refused)
        assert reads_as_allow(path, question(path, good(path, station)))

    def test_the_token_of_a_disabled_superuser_is_denied(self, question, root):
        path = "jwt/superuser"
        assert reads_as_allow(path, question(path, good(path, root)))

        Account.objects.filter(username=root.username).update(is_active=False)
        refused = question(path, good(path, root))
        Account.objects.update(is_active=True)

        assert reads_as_deny(path, refused)

    @pytest.mark.parametrize(
        "change", [{"version": 1}, {"ttl": -60}, {"username": "undefined"}, {"keys": "another"}], ids=str
    )
    def test_an_invalid_token_is_denied_at_each_question(self, question, station, root, change):
        keys = conf.options().jwt_keys
        if "keys" in change:
            secret = "a secret of more than 32 bytes, of somebody else"
            keys = (keys[0]._replace(signing=secret, verifying=secret),)
        for about, who in (("user", station), ("acl", station), ("superuser", root)):
            principal = who.username
            bearer = tokens.issue(
                change.get("username", principal),
                change.get("version", version(who)),
                keys,
                change.get("ttl", 60),
            )
            fields = {k: v for k, v in good(f"jwt/{about}", who).items() if k != "username"}
            assert reads_as_deny(f"jwt/{about}", question(f"jwt/{about}", fields, bearer=bearer))
            right = tokens.issue(principal, version(who), conf.options().jwt_keys, 60)
            assert reads_as_allow(f"jwt/{about}", question(f"jwt/{about}", fields, bearer=right))

    def test_only_the_query_and_the_path_prove_the_caller(self, ask_with, world, bearer):
        secret = world.token
        for proof, query in ((f"k/{secret}/", b""), ("", b"k=" + secret.encode())):
            assert ask_with("user", authorization=[bearer], proof=proof, query=query)
            assert not ask_with("user", authorization=[f"Bearer {secret}"], proof=proof, query=query)
        for authorization in ([bearer], [f"Bearer {secret}"], [bearer, f"Bearer {secret}"]):
            headers = [(b"x-broker-secret", secret.encode())]
            assert not ask_with("user", authorization=authorization, proof="", headers=headers)
            assert not ask_with("user", authorization=authorization, proof="")

    def test_two_proofs_that_differ_are_none(self, ask_with, world, bearer):
        right, wrong = b"k=" + world.token.encode(), b"k=" + b"x" * 43

        for query in (right, b"%s&%s" % (right, right)):
            assert ask_with("user", authorization=[bearer], query=query)
        for query in (wrong, b"k=", b"%s&%s" % (right, wrong), b"%s&%s" % (wrong, right)):
            assert not ask_with("user", authorization=[bearer], query=query)
            assert not ask_with("user", authorization=[bearer], query=query, proof="")
        assert not ask_with("user", authorization=[bearer], query=right, proof="k/x/")

    def test_a_header_that_is_no_proof_is_no_second_one(self, ask_with, bearer):
        """X-Broker-Secret is not read here, so a wrong one has no effect."""
        assert ask_with("user", authorization=[bearer], headers=[(b"x-broker-secret", b"x")])


def version(who):
    """Return the version of the credentials of *who*, as in their tokens."""
    return tokens.verify(token_of(who.username), conf.options().jwt_keys).version
