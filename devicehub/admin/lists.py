"""Filters and counts of lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.utils import timezone

from devicehub import sites, visibility
from devicehub.kinds.registry import registry
from devicehub.states import STATES

COUNTED = 100_000  # Rows of a list that are counted and can be paged through; a filter reaches the rest.
LISTED = 30  # Devices that a filter offers.
LONGEST_KEY = 19  # The digits of a number that may be beyond the primary keys.
QUIET = {"1h": ("1 hour", 1), "1d": ("1 day", 24), "7d": ("7 days", 7 * 24), "30d": ("30 days", 30 * 24)}


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that counts at most COUNTED rows, since a count of a table of readings takes seconds."""

    @cached_property
    def count(self) -> int:
        found: Any = self.object_list
        return int(found.order_by()[:COUNTED].count()) if isinstance(found, QuerySet) else len(found)


class ChoiceFilter(admin.SimpleListFilter):
    """A filter by one of *options*: the label and the condition for each value of the parameter.

    Without the parameter it filters by *default*; without a default it shows all rows, and offers *All*.
    """

    options: dict[str, tuple[str, Callable[[], Q]]] = {}
    default = ""

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, label) for value, (label, _) in self.options.items()]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        chosen = self.options.get(self.value() or self.default)
        return queryset.filter(chosen[1]()) if chosen else None

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Yield the choices. With a default, it is chosen without the parameter, and *All* is one of the options."""
        if not self.default:
            yield from super().choices(changelist)
            return
        for value, (label, _) in self.options.items():
            is_default = value == self.default
            query = changelist.get_query_string(
                {} if is_default else {self.parameter_name: value},
                [self.parameter_name] if is_default else [],
            )
            selected = (self.value() or self.default) == value
            yield {"selected": selected, "query_string": query, "display": label}


class StateFilter(admin.SimpleListFilter):
    """Filters devices by the state that the list shows; the query set has `state_rank`."""

    title, parameter_name = "state", "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.name, state.word) for state in STATES.values()]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        name = self.value()
        return queryset.filter(state_rank=list(STATES).index(name)) if name in STATES else None


class SiteFilter(admin.SimpleListFilter):
    """Filters devices by site. It offers those of the reader, or those of the devices; a link may name any other."""

    title, parameter_name = "site", "site"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        own, kind = visibility.sites_of(request.user), registry.of(model_admin.model)
        found = sorted(own) if own is not None else sites.existing([kind] if kind else [])
        if found and own is None:
            found.append("")
        chosen = request.GET.get(self.parameter_name)
        if chosen is not None and chosen not in found:
            found.append(chosen)
        return [(site, site or "No site") for site in found]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        value = self.value()
        return queryset.filter(site=value) if value is not None else None


class CredentialsFilter(ChoiceFilter):
    title, parameter_name = "credentials", "credentials"
    options = {
        "none": ("None", lambda: Q(mqtt_password_hash="")),
        "expired": ("Expired", lambda: Q(password_expires_at__lte=timezone.now())),
        "two": ("Two passwords valid", lambda: Q(previous_valid_until__gt=timezone.now())),
    }


class QuietFilter(ChoiceFilter):
    title, parameter_name = "silent for longer than", "quiet"
    options = {
        value: (label, lambda hours=hours: Q(last_seen__lt=timezone.now() - timedelta(hours=hours)))  # type: ignore[misc]
        for value, (label, hours) in QUIET.items()
    }


class DeviceFilter(admin.SimpleListFilter):
    """Filters readings and messages by their device. It offers the first devices; a link may name any other."""

    title, parameter_name = "device", "device"

    @classmethod
    def chosen(cls, request: Any) -> int | None:
        """Return the primary key that the address names, or None without one; a longer number is not one."""
        text = request.GET.get(cls.parameter_name, "")
        return int(text) if text.isdecimal() and len(text) < LONGEST_KEY else None

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        model = model_admin.model._meta.get_field("device").remote_field.model
        own = model_admin.admin_site._registry.get(model)
        devices = own.get_queryset(request) if own else model.objects.none()
        rows = devices.order_by("device_id").values_list("pk", "device_id")
        found = list(rows[:LISTED])
        chosen = self.chosen(request)
        if chosen is not None and chosen not in dict(found):
            found = list(rows.filter(pk=chosen)) + found
        return [(str(pk), device_id) for pk, device_id in found]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        value = self.value() or ""
        if not value:
            return None
        return (
            queryset.filter(device_id=int(value)) if value in dict(self.lookup_choices) else queryset.none()
        )


def lately(column: str) -> type[ChoiceFilter]:
    """Return a filter by the time in *column*: the last hour, day or week."""

    def after(hours: int) -> Callable[[], Q]:
        return lambda: Q(**{f"{column}__gte": timezone.now() - timedelta(hours=hours)})

    options = {
        "1h": ("Last hour", after(1)),
        "24h": ("Last 24 hours", after(24)),
        "7d": ("Last 7 days", after(168)),
    }
    return type(
        "TimeFilter", (ChoiceFilter,), {"title": "time", "parameter_name": "since", "options": options}
    )
