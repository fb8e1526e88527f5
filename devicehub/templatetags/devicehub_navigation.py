"""`{% navigation as menu %}`: the rail and the account menu, for base.html. It needs no context processor."""

from __future__ import annotations

from django import template
from django.template import Context

from devicehub.dashboard import navigation as entries
from devicehub.dashboard.navigation import Menu

register = template.Library()


@register.simple_tag(takes_context=True)
def navigation(context: Context) -> Menu:
    """Return the links of the navigation; empty for a page that is rendered without a request."""
    request = getattr(context, "request", None)
    return entries.menu(request) if request is not None else Menu()
