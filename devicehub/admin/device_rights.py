"""The panel about the rights of a device: its own topics, and the grants that apply to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import Case, Q, QuerySet, Value, When
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from authsvc.core import grants
from authsvc.core.grants import ActionSet
from authsvc.models import Grant
from authsvc.text import in_utc
from devicehub.admin import cells, index, reach
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind, UnknownKey, registry
from devicehub.models import BaseDevice, DeviceGroup, GroupMember

LISTED = 20  # Grants in the panel; the list of grants has the rest.
# A grant for more than the device stands before its own ones.
BROAD_FIRST = Case(When(subject__startswith="key:", then=Value(1)), default=Value(0))


@dataclass(frozen=True)
class Right:
    """A row of the panel. *url* leads to the grant, and is empty for a topic of the device."""

    effect: str
    actions: str
    filter: str
    subject: str
    period: str
    is_in_force: bool = True
    url: str = ""


class DeviceFilter(admin.SimpleListFilter):
    """Filters grants by a device to which they apply. Only a link names one, such as that of the panel."""

    title, parameter_name = "device", "device"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get(self.parameter_name, "")
        return [(chosen, chosen)] if chosen else []

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        return queryset.filter(applies_to(self.value() or "")) if self.value() else None


def applies_to(key: str) -> Q:
    """Return the condition for grants that apply to the device called *key*, in force or not."""
    try:
        kind, _ = registry.resolve(key)
    except UnknownKey:
        return Q(pk__in=[])
    groups = GroupMember.objects.filter(device_key=key).values_list("group__slug", flat=True)
    named = [f"group:{slug}" for slug in groups]
    return Q(subject__in=["everyone", f"type:{kind.slug}", f"key:{key}", *named])


def panel(request: HttpRequest, device: BaseDevice) -> str:
    """Return the table of what *device* may do; its grants only for a reader who may see the list of grants."""
    kind = registry.of(device)
    if kind is None:
        return ""
    key, found, more = kind.key(device.device_id), [], 0
    sees_grants = index.may_list(request, Grant)
    if sees_grants:
        rows = Grant.objects.filter(applies_to(key)).order_by("-effect", BROAD_FIRST, "subject", "filter")
        found = list(rows[: LISTED + 1])
        more = rows.count() - LISTED if len(found) > LISTED else 0
    grants_page = admin.site._registry.get(Grant)
    may_add = grants_page is not None and grants_page.has_add_permission(request)
    context = {
        "obstacle": _obstacle(device),
        "add_grant_url": f"{reverse('admin:authsvc_grant_add')}?{urlencode({'subject': f'key:{key}'})}"
        if may_add
        else "",
        "rights": [*_own(kind, device), *_granted(kind, device, found[:LISTED])],
        "sees_grants": sees_grants,
        "more": more,
        "grants_url": cells.list_url(Grant, f"?{urlencode({DeviceFilter.parameter_name: key})}"),
    }
    return render_to_string("devicehub/admin/device_rights.html", context, request)


def _obstacle(device: BaseDevice) -> str:
    """Return a sentence that says why *device* may do nothing at all; "" if it can log in."""
    if not device.is_active:
        return "It is disabled, so it may do nothing now. Enable it to bring these rights back."
    ends = device.password_expires_at
    has_password = bool(device.mqtt_password_hash) and (ends is None or ends > timezone.now())
    if has_password or device.api_key is not None:
        return ""
    act = "Rotate its password" if device.mqtt_password_hash else "Make a password for it"
    return f"It has no valid credentials, so it may do nothing now. {act} to bring these rights back."


def _own(kind: Kind, device: BaseDevice) -> list[Right]:
    """Return the topics of *device*, each with all its actions."""
    actions: dict[str, list[str]] = {}
    for rule in topics.owned(kind, device.device_id):
        actions.setdefault(rule.filter, []).extend(rule.actions.words)
    return [
        Right("Allow", ActionSet.of(words).sentence, topic, "Its own topic", "always")
        for topic, words in actions.items()
    ]


def _granted(kind: Kind, device: BaseDevice, rows: list[Grant]) -> list[Right]:
    slugs = [row.subject.partition(":")[2] for row in rows if row.subject.startswith("group:")]
    names = dict(DeviceGroup.objects.filter(slug__in=slugs).values_list("slug", "name")) if slugs else {}
    values, now = reach.values(kind, device), timezone.now()
    return [
        Right(
            row.get_effect_display(),
            ActionSet(row.actions).sentence,
            grants.fill(row.filter, values) or row.filter,
            _subject(row.subject, kind, names),
            _period(row.valid_from, row.valid_until, now),
            (row.valid_from is None or row.valid_from <= now)
            and (row.valid_until is None or now < row.valid_until),
            reverse("admin:authsvc_grant_change", args=[row.pk]),
        )
        for row in rows
    ]


def _subject(subject: str, kind: Kind, names: dict[str, str]) -> str:
    form, _, name = subject.partition(":")
    if form == "type":
        return f"Its type: {kind.name}"
    if form == "group":
        return f"Its group: {names.get(name, name)}"
    return "Everyone" if form == "everyone" else "This device"


def _period(begins: datetime | None, ends: datetime | None, now: datetime) -> str:
    """Return the period of a grant in words."""
    parts = []
    if begins is not None:
        parts.append(f"from {in_utc(begins)}")
    if ends is not None:
        parts.append(f"{'ended' if ends <= now else 'until'} {in_utc(ends)}")
    return " ".join(parts) or "always"
