"""The navigation of the admin with unfold: groups in the order of work, each item only where its page exists.

An app adds an item of its own when it is ready:

    sidebar.register("Firmware", "admin:firmware_firmware_changelist", group=sidebar.FLEET, icon="system_update_alt",
                     order=40)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.text import capfirst

from devicehub.admin import index, texts
from devicehub.kinds.registry import registry

TOP, FLEET, ACCESS, MESSAGES, OPERATION, PEOPLE = "", "Fleet", "Access", "Messages", "Operation", "People"
GROUPS = (TOP, FLEET, ACCESS, MESSAGES, OPERATION, PEOPLE)
LIST = "_changelist"

May = Callable[[HttpRequest], bool]


@dataclass(frozen=True)
class Item:
    """A page that the navigation can link to. *icon* is a Material symbol, *badge* the name of a count."""

    title: str
    url_name: str
    group: str
    icon: str
    order: int
    may: May
    badge: str = ""
    tone: str = "warning"


_items: dict[str, Item] = {}


def _everybody(request: HttpRequest) -> bool:
    return True


def register(
    title: str,
    url_name: str,
    *,
    group: str,
    icon: str,
    order: int,
    may: May | None = None,
    badge: str = "",
    tone: str = "warning",
) -> None:
    """Add the page *url_name* to *group*, or replace its item; low numbers of *order* come first.

    Without *may* an item for a list of a model is shown to users who may view it, and any other to everybody. *badge*
    is the name of a count of index.counts(), and *tone* its colour: `danger`, `warning` or `info`.
    """
    _items[url_name] = Item(title, url_name, group, icon, order, may or _may_view(url_name), badge, tone)


def _may_view(url_name: str) -> May:
    """Return whether a request may view the list that *url_name* names, as a function."""
    if not url_name.endswith(LIST):
        return _everybody
    label, _, model = url_name.removeprefix("admin:").removesuffix(LIST).rpartition("_")

    def may(request: HttpRequest) -> bool:
        try:
            page = admin.site._registry.get(apps.get_model(label, model))
        except LookupError:
            return False
        return page is not None and page.has_view_permission(request)

    return may


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups that *request* sees, in the form that unfold expects.

    The item with the longest address above the page is the current one.
    """
    shown = [(item, url) for item in [*_items.values(), *_of_kinds()] if (url := address(item.url_name))]
    shown = [(item, url) for item, url in shown if item.may(request)]
    current = max((url for item, url in shown if _is_above(url, request.path)), key=len, default="")
    counts = index.counts(request.user) if any(item.badge for item, _ in shown) else {}
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
    for item, url in sorted(shown, key=lambda pair: (pair[0].order, pair[0].title)):
        groups.setdefault(item.group, []).append(_shown(item, url, url == current, counts))
    return [
        {"title": name, "separator": bool(name), "collapsible": False, "items": items}
        for name, items in groups.items()
        if items
    ]


def _is_above(url: str, path: str) -> bool:
    """Return whether *path* is the page *url* or below it; the start pages have only themselves below them."""
    starts = (address("admin:index"), address("devicehub:overview"))
    return path == url or (url not in starts and path.startswith(url))


def _shown(item: Item, url: str, is_current: bool, counts: dict[str, int]) -> dict[str, Any]:
    count = counts.get(item.badge, 0)
    badge = {"badge": f"{count:,}", "badge_variant": item.tone} if count else {}
    return {"title": item.title, "icon": item.icon, "link": url, "active": is_current, **badge}


def _of_kinds() -> list[Item]:
    """Return one item for the devices of each kind, and one each for all readings and all messages."""
    items = _of_devices()
    with_values = [kind.value_models[0] for kind in registry if kind.value_models]
    for model in with_values[:1]:
        items.append(_of_model("Readings", model, MESSAGES, "show_chart", 40))
    for kind in list(registry)[:1]:
        items.append(_of_model("Messages", kind.message_model, MESSAGES, "mail", 30))
    return items


def _of_devices() -> list[Item]:
    """Return one item for the devices of each kind, unless an app registered its own."""
    items = [
        _of_model(
            capfirst(texts.in_a_sentence(str(kind.device_model._meta.verbose_name_plural))),
            kind.device_model,
            FLEET,
            "memory",
            place,
        )
        for place, kind in enumerate(registry)
    ]
    return [item for item in items if item.url_name not in _items]


def _of_model(title: str, model: type[Any], group: str, icon: str, order: int) -> Item:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}{LIST}"
    return Item(title, name, group, icon, order, _may_view(name))


def group_of(list_url: str) -> str:
    """Return the group in which the list at *list_url* stands; "" for a list that the navigation does not have."""
    item = _item_of(list_url)
    return item.group if item else ""


def title_of(list_url: str) -> str:
    """Return the title of the list at *list_url*; "" for a list that the navigation does not have."""
    item = _item_of(list_url)
    return item.title if item else ""


def _item_of(list_url: str) -> Item | None:
    items = [*_items.values(), *_of_devices()]
    return next((item for item in items if address(item.url_name) == list_url), None)


def address(url_name: str) -> str:
    """Return the address of *url_name*; "" in a project without it."""
    try:
        return reverse(url_name)
    except NoReverseMatch:
        return ""


def site_url(request: HttpRequest) -> str:
    """Return the address of the dashboard, or "" in a project without its pages."""
    return address("devicehub:overview")


def account(request: HttpRequest) -> list[dict[str, str]]:
    """Return the entries of the user's menu."""
    url = address("devicehub:account")
    return [{"title": "My account", "link": url}] if url else []


def mark(request: HttpRequest) -> str:
    return static("devicehub/mark.svg")


def tokens(request: HttpRequest) -> str:
    return static("devicehub/tokens.css")


def symbols(request: HttpRequest) -> str:
    return static("devicehub/symbols.js")


def styles(request: HttpRequest) -> str:
    return static("devicehub/admin.css")


register("Overview of the administration", "admin:index", group=TOP, icon="space_dashboard", order=10)
register("Back to the dashboard", "devicehub:overview", group=TOP, icon="arrow_back", order=20)
for _title, _model, _group, _icon, _order, _badge, _tone in (
    ("Groups of devices", "devicehub_devicegroup", FLEET, "workspaces", 100, "", ""),
    ("Imports", "devicehub_deviceimport", FLEET, "upload_file", 110, "", ""),
    ("Denials", "authsvc_denial", ACCESS, "gpp_bad", 10, "denials", "danger"),
    ("Grants", "authsvc_grant", ACCESS, "rule", 20, "", ""),
    ("Service accounts", "authsvc_account", ACCESS, "smart_toy", 40, "", ""),
    ("Brokers", "authsvc_broker", ACCESS, "dns", 50, "brokers", "warning"),
    ("Rotations", "devicehub_rotation", ACCESS, "autorenew", 60, "rotations", "info"),
    ("Quarantine", "devicehub_quarantinedmessage", MESSAGES, "inventory_2", 10, "quarantine", "warning"),
    ("Commands", "devicehub_devicecommand", MESSAGES, "send", 20, "", ""),
    ("Counted refusals", "devicehub_countedrefusal", MESSAGES, "block", 50, "", ""),
    ("Ingest workers", "devicehub_ingestworker", OPERATION, "settings_input_component", 30, "", ""),
    ("Retained topics", "devicehub_retainedtopic", OPERATION, "push_pin", 40, "", ""),
    ("Removals", "devicehub_removalrequest", OPERATION, "delete_sweep", 50, "", ""),
    ("Audit", "authsvc_auditentry", OPERATION, "history_edu", 60, "", ""),
    ("Users", "auth_user", PEOPLE, "person", 10, "", ""),
    ("Roles", "auth_group", PEOPLE, "badge", 20, "", ""),
    ("API keys", "devicehub_apikey", PEOPLE, "key", 30, "", ""),
):
    register(
        _title, f"admin:{_model}{LIST}", group=_group, icon=_icon, order=_order, badge=_badge, tone=_tone
    )
register(
    "Simulator",
    "devicehub:simulator",
    group=ACCESS,
    icon="verified_user",
    order=30,
    may=_may_view(f"admin:authsvc_grant{LIST}"),  # It shows the rules by which it decides.
)
