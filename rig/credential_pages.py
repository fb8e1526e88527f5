"""The forms and the secrets on the pages of credentials."""

from __future__ import annotations

import re

from django.contrib.auth.models import User
from django.test import Client

ADD = "/devices/add/"


def signed_in(user: User) -> Client:
    """Return a client that is signed in as *user*."""
    client = Client()
    client.force_login(user)
    return client


def nonce_of(page: str, do: str = "") -> str:
    """Return the number in the form of *page*, or in that which does *do*."""
    form = page.split(f'name="do" value="{do}"')[1] if do else page
    found = re.search(r'name="nonce" value="([^"]+)"', form)
    assert found is not None
    return found[1]


def secrets_of(page: str) -> dict[str, str]:
    """Return the `password` and the `key` that *page* shows."""
    return dict(re.findall(r'<code id="s-(password|key)">([^<]+)</code>', page))
