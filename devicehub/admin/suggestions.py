"""Suggestions for a text field that names a device or an account: a small JSON view, bounded and by permission."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.http import HttpRequest, JsonResponse

from authsvc.models import Account
from devicehub import visibility

MOST = 20  # Suggestions in one answer.
LONGEST = 200  # Characters of a search.


def answer(request: HttpRequest) -> JsonResponse:
    """Return suggestions for `?kind=device` or `?kind=account`, with the text to search in `q`."""
    text = request.GET.get("q", "").strip()[:LONGEST].replace("\x00", "")
    find = {"device": devices, "account": accounts}.get(request.GET.get("kind", ""))
    found = find(request.user, text) if find else []
    return JsonResponse({"results": found}, headers={"Cache-Control": "no-store"})


def devices(user: Any, text: str) -> list[dict[str, str]]:
    """Return the keys and names of up to MOST devices that *user* sees, whose key or name contains *text*."""
    found: list[dict[str, str]] = []
    slug, slash, rest = text.partition("/")
    for kind in visibility.kinds_of(user):
        if slash and kind.slug != slug:
            continue
        part = rest if slash else text
        rows = visibility.devices(kind, user).filter(Q(device_id__icontains=part) | Q(name__icontains=part))
        wanted = rows.order_by("device_id").values_list("device_id", "name")[: MOST - len(found)]
        found += [{"value": kind.key(device_id), "label": name} for device_id, name in wanted]
        if len(found) == MOST:
            break
    return found


def accounts(user: Any, text: str) -> list[dict[str, str]]:
    """Return the usernames of up to MOST accounts, if *user* may see accounts."""
    if not visibility.may(user, visibility.VIEW, Account) or visibility.is_limited(user):
        return []
    rows = Account.objects.filter(username__icontains=text).order_by("username")
    return [{"value": name, "label": ""} for name in rows.values_list("username", flat=True)[:MOST]]
