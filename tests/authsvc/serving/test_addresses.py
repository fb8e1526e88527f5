"""The address of a client behind proxies, and the networks of brokers that are compared with it."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks
from django.test import RequestFactory

from authsvc import conf
from authsvc.models import Broker
from authsvc.serving import addresses
from rig.entrances import ENTRANCES, both_entrances, send_request

PROXIES = ["10.0.0.0/8", "2001:db8:ffff::/48"]
CASES = [
    # Peer, header, and the address of the client.
    ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
    ("10.0.0.1", "203.0.113.9, 192.0.2.7", "192.0.2.7"),
    ("10.0.0.1", "203.0.113.9,192.0.2.7 , 10.9.9.9,10.0.0.2", "192.0.2.7"),
    ("10.0.0.1", "", "10.0.0.1"),
    ("10.0.0.1", "  ", "10.0.0.1"),
    ("10.0.0.1", "10.0.0.7, 10.0.0.2", "10.0.0.7"),
    ("::ffff:10.0.0.1", "192.0.2.7", "192.0.2.7"),
    ("2001:db8:ffff::1", "2001:db8::7", "2001:db8::7"),
    ("10.0.0.1", "192.0.2.7:5678", "192.0.2.7"),
    ("10.0.0.1", "[2001:db8::7]:1", "2001:db8::7"),
    ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
    ("10.0.0.1", "2001:DB8:0::7", "2001:db8::7"),
    ("10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
    ("10.0.0.1", "[::ffff:192.0.2.7]:99", "192.0.2.7"),
    ("10.0.0.1", "192.0.2.7, ::ffff:10.0.0.2", "192.0.2.7"),
    ("10.0.0.1", "fe80::1%eth0", "fe80::1"),
    # An entry that is not an address is not skipped: a client may have written the entries left of it.
    ("10.0.0.1", "192.0.2.7, unknown", ""),
    ("10.0.0.1", "192.0.2.7, unknown, 10.0.0.2", ""),
    ("10.0.0.1", "192.0.2.7,", ""),
    ("10.0.0.1", "192.0.2.7, ,10.0.0.2", ""),
    ("10.0.0.1", "192.0.2.7:port", ""),
    ("10.0.0.1", "192.0.2.7:1:2", ""),
    ("10.0.0.1", "[2001:db8::7", ""),
    ("10.0.0.1", "[2001:db8::7]x", ""),
    ("10.0.0.1", "[192.0.2.7]:", ""),
    ("10.0.0.1", "0300.0.2.7", ""),
    ("10.0.0.1", "localhost", ""),
    # Headers of other peers are not trusted.
    ("192.0.2.7", "10.0.0.1", "192.0.2.7"),
    ("192.0.2.7", "203.0.113.9, 10.0.0.1", "192.0.2.7"),
    ("2001:db8::1", "203.0.113.9", "2001:db8::1"),
    ("", "203.0.113.9", ""),
    ("testclient", "203.0.113.9", "testclient"),
]


def both(peer: str, *headers: str) -> str:
    """Return the address that the two entrances find, which must agree."""
    scope = addresses.of_scope(peer, [(b"x-forwarded-for", value.encode()) for value in headers])
    more = {"HTTP_X_FORWARDED_FOR": ",".join(headers)} if headers else {}
    request = RequestFactory().get("/", REMOTE_ADDR=peer, **more)
    assert addresses.of_request(request) == scope
    return scope


@pytest.mark.sqlite_only
@pytest.mark.parametrize(("peer", "header", "client"), CASES)
def test_the_client_is_the_last_entry_that_is_not_a_trusted_proxy(settings, peer, header, client):
    settings.TRUSTED_PROXIES = PROXIES

    assert both(peer, header) == client


@pytest.mark.sqlite_only
def test_a_header_that_is_repeated_is_read_as_one(settings):
    settings.TRUSTED_PROXIES = PROXIES

    assert both("10.0.0.1", "203.0.113.9", "192.0.2.7", "10.0.0.2") == "192.0.2.7"


@pytest.mark.sqlite_only
@pytest.mark.parametrize("peer", ["10.0.0.1", "::1", ""])
def test_without_trusted_proxies_no_header_is_read(settings, peer):
    settings.TRUSTED_PROXIES = []

    assert addresses.of_scope(peer, None) == peer  # type: ignore[arg-type] - It would raise.
    assert both(peer, "192.0.2.7") == peer


@pytest.mark.sqlite_only
def test_a_unix_socket_is_trusted_by_its_name_alone(settings):
    settings.TRUSTED_PROXIES = ["unix"]
    assert both("", "203.0.113.9, 192.0.2.7") == "192.0.2.7"
    assert both("127.0.0.1", "192.0.2.7") == "127.0.0.1"
    assert both("") == ""

    settings.TRUSTED_PROXIES = ["0.0.0.0/0", "::/0"]
    assert both("", "192.0.2.7") == ""


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "entry", ["10.1.2.3/8", "proxy.example.org", "10.0.0.0/33", "*", "", "::ffff:0:0/90", 10], ids=repr
)
def test_an_entry_that_is_not_a_network_trusts_no_peer_and_is_reported(settings, entry):
    settings.TRUSTED_PROXIES = ["10.2.0.0/16", entry]

    assert [found.id for found in run_checks() if "TRUSTED_PROXIES" in found.msg] == ["authsvc.E016"]
    assert both("10.1.2.3", "192.0.2.7") == "10.1.2.3"
    assert both("10.2.0.1", "192.0.2.7") == "192.0.2.7"


@pytest.mark.sqlite_only
def test_a_text_instead_of_a_list_is_reported(settings):
    settings.TRUSTED_PROXIES = "10.0.0.0/8"

    assert [found.id for found in run_checks() if "TRUSTED_PROXIES" in found.msg] == ["authsvc.E016"]
    assert both("10.1.2.3", "192.0.2.7") == "10.1.2.3"


@pytest.mark.sqlite_only
def test_a_proxy_that_is_not_named_is_reported_for_deployment(settings):
    def found():
        return [message.id for message in run_checks(include_deployment_checks=True)]

    assert "authsvc.W017" not in found()
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert "authsvc.W017" in found()
    settings.TRUSTED_PROXIES = ["10.0.0.1"]
    assert "authsvc.W017" not in found()


@pytest.mark.sqlite_only
def test_a_mapped_network_is_the_network_of_ipv4():
    assert conf.proxy("::ffff:10.0.0.0/104") == conf.proxy("10.0.0.0/8")


@both_entrances
class TestNetworksOfBrokers:
    """The peer of all questions here is a proxy at 10.1.2.3."""

    @pytest.fixture
    def allowed(self, loop, token, station, entrance):
        """Return a function that returns whether a login with these headers is allowed."""

        def ask(peer, *forwarded):
            headers = [("X-Forwarded-For", value) for value in forwarded]
            fields = {"username": station.username, "clientid": station.username}
            fields["password"] = station.password
            url = f"/mqtt/go-auth/user?k={token}"
            sent = send_request(ENTRANCES[entrance], "POST", url, peer=peer, json=fields, headers=headers)
            return loop.run(sent).status_code == 200

        return ask

    def test_they_are_compared_with_the_client_behind_a_trusted_proxy(self, settings, allowed):
        settings.TRUSTED_PROXIES = ["10.1.2.3"]
        Broker.objects.update(networks=["192.0.2.0/24"])

        assert allowed("10.1.2.3", "192.0.2.7")
        assert allowed("10.1.2.3", "203.0.113.9, 192.0.2.7")
        assert not allowed("10.1.2.3", "192.0.2.7, 203.0.113.9")
        assert not allowed("10.1.2.3", "192.0.2.7, unknown")
        assert not allowed("10.1.2.3")
        assert not allowed("10.1.2.4", "192.0.2.7")
        assert not allowed("203.0.113.9", "192.0.2.7")

    def test_a_caller_admitted_from_one_address_is_not_admitted_from_another(self, settings, allowed):
        """Nor does it get a cached answer: the same bytes come from two peers."""
        Broker.objects.update(networks=["10.1.2.3"])

        for _ in range(3):
            assert allowed("10.1.2.3")
            assert not allowed("10.1.2.4")

    def test_a_change_of_the_setting_clears_admitted_callers(self, settings, allowed):
        settings.TRUSTED_PROXIES = ["10.1.2.3"]
        Broker.objects.update(networks=["192.0.2.0/24"])
        assert allowed("10.1.2.3", "192.0.2.7")

        settings.TRUSTED_PROXIES = []
        assert not allowed("10.1.2.3", "192.0.2.7")
