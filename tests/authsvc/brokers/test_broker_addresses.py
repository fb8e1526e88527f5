"""The address of the service, `create_broker --url`, in the printed configuration."""

from __future__ import annotations

import re
from io import StringIO
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, call_command

from authsvc.brokers import BY_DIALECT
from authsvc.checks import check_url
from authsvc.models import Broker

pytestmark = pytest.mark.sqlite_only

ADDRESSES = [
    "http://hub:8000",
    "https://hub.example.org",
    "http://[::1]:8000",
    "http://[fd00::7]",
    "http://hub:8000/sub/",
]


def called_url(dialect: str, url: str) -> str:
    """Return the URL that mosquitto-go-auth joins from the printed options."""
    kind = "http" if dialect == "go-auth" else "jwt"
    text = BY_DIALECT[dialect].configuration(url, "TOKEN")
    options = dict(re.findall(rf"^auth_opt_{kind}_(\w+) (.*)$", text, re.MULTILINE))
    scheme = "https" if options.get("with_tls") == "true" else "http"
    host = options["host"]
    if dialect == "go-auth" or ":" not in host:  # The plugin does the same.
        host = f"{host}:{options['port']}"
    return f"{scheme}://{host}{options['getuser_uri']}"


@pytest.mark.parametrize("url", ADDRESSES)
@pytest.mark.parametrize("dialect", ["go-auth", "jwt"])
def test_the_plugin_reaches_the_service_at_its_address(dialect, url):
    """Go refuses an IPv6 address without brackets, and the plugin then logs the URL with the token."""
    wanted, found = urlsplit(url), urlsplit(called_url(dialect, url))

    assert (found.scheme, found.hostname) == (wanted.scheme, wanted.hostname)
    assert found.port == (wanted.port or {"http": 80, "https": 443}[wanted.scheme])
    assert found.path == f"{wanted.path.rstrip('/')}/mqtt/{dialect}/user"


@pytest.mark.django_db
@pytest.mark.parametrize("dialect", sorted(BY_DIALECT))
@pytest.mark.parametrize(
    "url", ["http://hub x:8000", "http://hub:8000\n", 'http://hub:8000/"', "http://h;x", "http://h\\x"]
)
def test_an_address_that_no_url_can_hold_makes_no_broker(dialect, url):
    with pytest.raises(CommandError, match="is not the address of this service"):
        call_command("create_broker", "broker-1", dialect, "--url", url, stdout=StringIO(), stderr=StringIO())

    assert not Broker.objects.exists()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("", []),
        ("https://hub.example.org/sub", []),
        ("hub:8000", ["authsvc.E022"]),
        ("http://a@b", ["authsvc.E022"]),
    ],
)
def test_a_check_reports_an_address_that_no_broker_can_use(settings, url, found):
    settings.AUTHSVC_URL = url

    assert [message.id for message in check_url()] == found
