"""The entries of the rail at the left of each page, and of the account menu. Other apps add to them.

An app registers its pages when it is ready:

    class FirmwareConfig(AppConfig):
        def ready(self) -> None:
            navigation.register("Firmware", "firmware:list", group=navigation.FLEET, icon="firmware", order=30)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.text import slugify

Visible = Callable[[HttpRequest], bool]

# The groups, in the order of work. FOOT is the end of the rail, ACCOUNT the menu of the user.
TOP, FLEET, ACCESS, MESSAGES, FOOT, ACCOUNT = "", "Fleet", "Access", "Messages", "foot", "account"
GROUPS = (TOP, FLEET, ACCESS, MESSAGES)
START = "devicehub:overview"


@dataclass(frozen=True)
class Badge:
    """A number beside an entry, only where somebody should act: its tone is `warn`, `bad` or none."""

    count: int
    tone: str = ""


Badged = Callable[[HttpRequest], Badge | None]


@dataclass(frozen=True)
class Entry:
    """A page that the navigation can link to."""

    label: str
    url_name: str
    group: str
    icon: str
    order: int
    visible: Visible
    badge: Badged | None
    also: str  # The URL whose pages belong to the entry too.


@dataclass(frozen=True)
class Link:
    """An entry of the navigation on the page of one request."""

    label: str
    url: str
    icon: str
    is_current: bool
    badge: Badge | None


@dataclass(frozen=True)
class Group:
    """The links of one group of the rail."""

    name: str
    links: list[Link]

    @property
    def slug(self) -> str:
        return slugify(self.name)


@dataclass(frozen=True)
class Menu:
    """All links that one reader sees: the rail with its foot, and the account menu."""

    groups: list[Group] = field(default_factory=list)
    foot: list[Link] = field(default_factory=list)
    account: list[Link] = field(default_factory=list)


_entries: dict[str, Entry] = {}


def is_signed_in(request: HttpRequest) -> bool:
    """Return whether *request* has a user; a project without authentication has none."""
    return bool(getattr(_user(request), "is_authenticated", False))


def is_staff(request: HttpRequest) -> bool:
    """Return whether the user of *request* may sign in to the admin."""
    return bool(getattr(_user(request), "is_staff", False))


def register(
    label: str,
    url_name: str,
    *,
    order: int,
    group: str = TOP,
    icon: str = "file",
    visible: Visible = is_signed_in,
    badge: Badged | None = None,
    also: str = "",
) -> None:
    """Add the page *url_name* to *group*, or replace its entry; low numbers of *order* come first.

    *icon* is the name of a symbol of icons.svg. *visible* and *badge* are called for each page that is shown: they
    may check permissions, which Django reads once for each request, but must not query anything else themselves;
    a badge returns a cached number, or None for nothing to do. A group that is not in GROUPS stands after them.
    The pages below the URL called *also*, such as the same ones in the admin, belong to the entry too.
    """
    _entries[url_name] = Entry(label, url_name, group, icon, order, visible, badge, also)


def menu(request: HttpRequest) -> Menu:
    """Return the links that *request* may see; none without a user. An entry without a URL is left out."""
    if _user(request) is None:
        return Menu()
    seen = [entry for entry in _entries.values() if entry.visible(request)]
    found = [(entry, url) for entry in seen if (url := _url(entry.url_name)) is not None]
    current = _current(request.path, found)
    found.sort(key=lambda pair: (pair[0].order, pair[0].label))
    groups: dict[str, list[Link]] = {name: [] for name in GROUPS}
    for entry, url in found:
        groups.setdefault(entry.group, []).append(_link(request, entry, url, current))
    foot, account = groups.pop(FOOT, []), groups.pop(ACCOUNT, [])
    return Menu([Group(name, links) for name, links in groups.items() if links], foot, account)


def _link(request: HttpRequest, entry: Entry, url: str, current: str) -> Link:
    badge = entry.badge(request) if entry.badge else None
    return Link(entry.label, url, entry.icon, url == current, badge if badge and badge.count else None)


def _current(path: str, found: Iterable[tuple[Entry, str]]) -> str:
    """Return the address of the entry that *path* belongs to: its own, or else the longest one above it.

    All pages are below the start page, so that it is current on its own path only.
    """
    places = [(entry, url, url) for entry, url in found]
    places += [(entry, url, also) for entry, url in found if entry.also and (also := _url(entry.also))]
    above = [
        (len(place), url)
        for entry, url, place in places
        if place == path or (entry.url_name != START and path.startswith(place))
    ]
    return max(above, default=(0, ""))[1]


def _url(name: str) -> str | None:
    try:
        return reverse(name)
    except NoReverseMatch:
        return None


def _user(request: HttpRequest) -> Any:
    return getattr(request, "user", None)


register("Overview", START, icon="overview", order=10)
register("REST API", "devicehub:api_docs", group=FOOT, icon="book", order=80)
register("Administration", "admin:index", group=FOOT, icon="admin", order=90, visible=is_staff)
register("My account", "devicehub:account", group=ACCOUNT, icon="key", order=10)
