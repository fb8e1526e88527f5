"""The list of entries of the navigation at the top of each page. Other apps add to it.

An app registers its pages when it is ready:

    class FirmwareConfig(AppConfig):
        def ready(self) -> None:
            navigation.register("Firmware", "firmware", order=30)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

Visible = Callable[[HttpRequest], bool]


@dataclass(frozen=True)
class Entry:
    """A page that the navigation can link to."""

    label: str
    url_name: str
    order: int
    visible: Visible


@dataclass(frozen=True)
class Link:
    """An entry of the navigation on the page of one request."""

    label: str
    url: str
    is_current: bool


_entries: dict[str, Entry] = {}


def is_signed_in(request: HttpRequest) -> bool:
    """Return whether *request* has a user; a project without authentication has none."""
    return bool(getattr(_user(request), "is_authenticated", False))


def is_staff(request: HttpRequest) -> bool:
    """Return whether the user of *request* may sign in to the admin."""
    return bool(getattr(_user(request), "is_staff", False))


def register(label: str, url_name: str, order: int, visible: Visible = is_signed_in) -> None:
    """Add the page *url_name* to the navigation, or replace its entry; low numbers of *order* come first.

    *visible* is called for each page that is shown, and must not query the database.
    """
    _entries[url_name] = Entry(label, url_name, order, visible)


def links(request: HttpRequest) -> list[Link]:
    """Return the links that *request* may see, in order. An entry without a URL in the project is left out."""
    shown = [entry for entry in _entries.values() if entry.visible(request)]
    return [
        Link(entry.label, url, url == request.path)
        for entry in sorted(shown, key=lambda entry: (entry.order, entry.label))
        if (url := _url(entry.url_name)) is not None
    ]


def _url(name: str) -> str | None:
    try:
        return reverse(name)
    except NoReverseMatch:
        return None


def _user(request: HttpRequest) -> Any:
    return getattr(request, "user", None)


register("Fleet", "fleet", order=10)
register("Admin", "admin:index", order=90, visible=is_staff)
