"""Tags of the pages of the admin: `{% load devicehub_admin %}`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.contrib.admin.templatetags.admin_list import pagination
from django.templatetags.static import static
from django.utils.html import format_html

from devicehub.admin import cells, index, sidebar
from devicehub.admin.removing import Removes
from devicehub.conf import settings
from devicehub.dashboard.links import address

register = template.Library()


@register.simple_tag(takes_context=True)
def admin_fleet(context: Any) -> index.Fleet:
    """Return the content of the start page, for an admin that does not call DASHBOARD_CALLBACK."""
    return index.fleet(context["request"])


@register.simple_tag
def dh_glyph(name: str) -> str:
    """Return the glyph *name* of icons.svg."""
    return format_html(
        '<svg viewBox="0 0 12 12" aria-hidden="true"><use href="{}#g-{}"/></svg>',
        static("devicehub/icons.svg"),
        name,
    )


@register.simple_tag
def dh_when(moment: datetime | None) -> str:
    """Return how long ago *moment* is."""
    return cells.when(moment)


@register.simple_tag
def dh_group(list_url: Any) -> str:
    """Return the group of the navigation in which the list at *list_url* stands, or ""."""
    return sidebar.group_of(str(list_url or ""))


@register.simple_tag
def dh_title(list_url: Any, otherwise: Any) -> str:
    """Return the title that the list at *list_url* has in the navigation; *otherwise* if it is not there."""
    return sidebar.title_of(str(list_url or "")) or str(otherwise)


@register.simple_tag
def dh_reset_url() -> str:
    """Return the address for a forgotten password; "" if links are not mailed, or the dashboard is not there."""
    return address("devicehub:password_reset") if settings.password_reset else ""


@register.filter
def dh_name(row: Any) -> str:
    """Return the name of *row* in titles."""
    return cells.title(row)


@register.inclusion_tag("devicehub/admin/pagination.html")
def dh_pagination(changelist: Any) -> dict[str, Any]:
    """Return the pages and the count of a list, for Django's own admin, which would name the model."""
    noun = dh_noun(changelist.model_admin, changelist.opts, changelist.result_count)
    return {**pagination(changelist), "noun": noun}


@register.simple_tag
def dh_noun(page: Any, opts: Any, count: int = 1) -> str:
    """Return the word of the admin's *page* for *count* rows; the name of the model *opts* if the page is not ours."""
    if isinstance(page, Removes):
        return page.noun(count)
    return str(opts.verbose_name if count == 1 else opts.verbose_name_plural)


@register.simple_tag(takes_context=True)
def dh_owner(context: Any) -> Any:
    """Return the ModelAdmin whose list or form is shown; None on another page."""
    shown = context.get("cl") or context.get("adminform")
    return getattr(shown, "model_admin", None)
