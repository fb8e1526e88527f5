"""The addresses of objects of the API, as paths from the root of the site."""

from __future__ import annotations

from typing import Any

from django.urls import reverse


def address(name: str, **parts: Any) -> str:
    """Return the path of the route *name* of the namespace `devicehub`, such as `/api/keys/7/`."""
    return reverse(f"devicehub:{name}", kwargs=parts)
