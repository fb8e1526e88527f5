"""People who use the pages of credentials, and the numbers of their forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from devicehub import roles
from rig.browser import browser as browser
from rig.credential_pages import ADD, nonce_of, signed_in
from rig.people import person


@pytest.fixture
def operator(db: None) -> Client:
    """Return the client of an operator of all sites."""
    return signed_in(person("mara", roles.OPERATOR))


@pytest.fixture
def viewer(db: None) -> Client:
    """Return the client of a viewer of all sites."""
    return signed_in(person("vera", roles.VIEWER))


@pytest.fixture
def southerner(db: None) -> Client:
    """Return the client of an operator of the site south only."""
    return signed_in(person("sven", roles.OPERATOR, ["south"]))


@pytest.fixture
def add() -> Callable[..., Any]:
    """Return the function that opens the form for a new device and submits it."""

    def submit(client: Client, **fields: str) -> Any:
        number = nonce_of(client.get(ADD).content.decode())
        return client.post(ADD, {"nonce": number, "type": "weatherstation", **fields})

    return submit


@pytest.fixture
def change() -> Callable[..., Any]:
    """Return the function that opens the credentials of a device and submits one of the forms."""

    def submit(client: Client, device_id: str, do: str, **fields: str) -> Any:
        url = f"/devices/weatherstation/{device_id}/credentials/"
        page = client.get(url).content.decode()
        number = {"nonce": nonce_of(page, do)} if do in ("rotate", "rotate_key") else {}
        return client.post(url, {"do": do, **number, **fields})

    return submit
