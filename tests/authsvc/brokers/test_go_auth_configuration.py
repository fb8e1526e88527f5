"""The configuration of mosquitto-go-auth has the token at a place that the log of the plugin does not show."""

from __future__ import annotations

import base64
import re

import pytest

from authsvc.brokers import go_auth


@pytest.mark.parametrize("url", ["http://hub:8000", "https://hub.example.org"])
def test_the_token_is_the_password_of_the_host_and_works(send, entrance, station, token, url):
    """Go sends the userinfo of a URL as Basic authentication, and prints its password as *** in errors."""
    text = go_auth.BROKER.configuration(url, token)
    options = dict(re.findall(r"^auth_opt_(\w+) (.*)$", text, re.MULTILINE))

    userinfo, _, host = options["http_host"].partition("@")
    assert text.count(token) == 1
    assert userinfo == f"devicehub:{token}"
    assert host in url

    proof = {"Authorization": "Basic " + base64.b64encode(userinfo.encode()).decode()}
    login = {"username": station.username, "clientid": station.username, "password": station.password}
    fields = {"username": station.username, "clientid": station.username, "acc": 2}
    user, acl = options["http_getuser_uri"], options["http_aclcheck_uri"]
    assert send(entrance, "POST", user, json=login, headers=proof).json() == {"ok": True, "error": ""}
    assert send(
        entrance, "POST", acl, json={**fields, "topic": station.topic("data")}, headers=proof
    ).is_success
    assert send(entrance, "POST", user, json=login).status_code == 403
