"""Fixtures: a site with several processes, a device of it, and the notifications of its database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import psycopg.sql
import pytest

from rig import hub, servers
from rig.freshness import Site, listens
from rig.hub import eventually


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, needs_real) -> Iterator[servers.Cluster]:
    try:
        with servers.postgresql_cluster(tmp_path_factory.mktemp("postgresql")) as cluster:
            yield cluster
    except servers.MissingServer as missing:
        needs_real(missing)


@pytest.fixture(scope="session")
def site(cluster, tmp_path_factory) -> Iterator[Site]:
    """Yield the site of all files here; a process that runs other files in between does not start it again."""
    folder = tmp_path_factory.mktemp("site")
    variables = {"DATABASE_URL": cluster.url, "AUTHSVC_STALE_SECONDS": "6"}

    fleet = ["--count", "80", "--prefix", "S-", "--output", "-"]
    _, broker, provisioned, _ = hub.run_commands(
        cluster.url,
        ["migrate"],
        ["create_broker", "mosquitto", "go-auth", "--json"],
        ["provision_devices", "weatherstation", *fleet],
        ["create_account", "ingest", "--ingest"],
    )
    token, devices = json.loads(broker)["token"], json.loads(provisioned)
    with ExitStack() as stack:
        urls = [
            stack.enter_context(hub.gunicorn(folder / str(number), **variables, WEB_CONCURRENCY="1"))
            for number in range(2)
        ]
        yield Site(cluster, token, devices, "ingest", urls)


@pytest.fixture
def ours(site) -> Site:
    """Return the site once it listens. Each test uses a device of its own."""
    for url in site.urls:
        assert eventually(lambda url=url: listens(site, url)), site.ready(url)
    return site


@pytest.fixture
def fresh_device(site) -> dict[str, Any]:
    """Return a device that no other test has used."""
    return site.devices.pop()


@pytest.fixture
def heard(cluster, site) -> Callable[[str, Any], list[str]]:
    """Return a function that runs statements and returns the notifications of them."""

    def during(*statements: str) -> list[str]:
        with psycopg.connect(cluster.url, autocommit=True) as listening:
            listening.execute("LISTEN authsvc_changed")
            with psycopg.connect(cluster.url) as writing:
                for statement in statements:
                    writing.execute(statement)
            found = list(listening.notifies(timeout=0.2))
        return [message.payload for message in found if "proof" not in message.payload]

    return during
