"""The small parts of the pages: `{% load devicehub_parts %}`.

{% icon "key" %}                        an icon of icons.svg, beside a word
{% glyph "silent" %}                    the glyph of a state
{% state "silent" %}                    glyph and word in the tone of a state; {% state "silent" "Silent for 3 h" %}
{% pill "error" %}                      the same on a ground, for a state that stands alone
{% when device.last_seen %}             "3 s ago", with the exact time in `title`; "never" without one
{% exact device.expires_at %}           2026-12-01 06:03:41 UTC, for a time that may lie ahead
{% copy "password" "the password" %}    a button that copies the text of the element with that id
{% copy_from "text" slug "the text" %}  the same for the element with the id text-SLUG
{{ count|number }}                      1,284, and an en dash for None
{{ port|unlocalized }}                  1883, a number that is a name
{{ found|shown }} {{ unit|sign }}       21.4 °C, the value of a reading and the sign of its unit
{{ reading|reading_name }}              the name of a declared reading
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django import template
from django.forms import BoundField, CheckboxInput, RadioSelect
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from devicehub import states, visibility
from devicehub.dashboard import display
from devicehub.kinds.declare import Reading

register = template.Library()


class Look(NamedTuple):
    """The glyph, the tone and the word of a state."""

    glyph: str
    tone: str
    word: str


STATES: Mapping[str, Look] = {
    **{state.name: Look(state.glyph, state.tone, state.word) for state in states.STATES.values()},
    "asleep": Look("asleep", "busy", "Asleep"),
    "offline": Look("silent", "off", "Offline"),
    "done": Look("done", "good", "Done"),
    "part": Look("part", "warn", "Partly"),
    "wait": Look("wait", "off", "Waiting"),
    "expires": Look("expires", "warn", "Expired"),
}
MESSAGES: Mapping[str, tuple[str, str]] = {
    "success": ("good", "check"),
    "warning": ("warn", "warn"),
    "error": ("bad", "warn"),
}
OTHER_MESSAGE = ("busy", "info")


def _use(kind: str, name: str) -> SafeString:
    sprite = f"{static('devicehub/icons.svg')}#{kind[0]}-{name}"
    return format_html('<svg class="{}" aria-hidden="true"><use href="{}"/></svg>', kind, sprite)


@register.simple_tag
def icon(name: str) -> SafeString:
    """Return the icon *name* of icons.svg."""
    return _use("icon", name)


@register.simple_tag
def glyph(name: str) -> SafeString:
    """Return the glyph of the state *name*."""
    return _use("glyph", STATES[name].glyph if name in STATES else name)


def _state(css: str, name: str, word: str) -> SafeString:
    look = STATES.get(name, Look("wait", "off", name))
    return format_html(
        '<span class="{} {}">{}{}</span>', css, look.tone, _use("glyph", look.glyph), word or look.word
    )


@register.simple_tag
def state(name: str, word: str = "") -> SafeString:
    """Return the state *name* with its usual word, or with *word*."""
    return _state("state", name, word)


@register.simple_tag
def pill(name: str, word: str = "") -> SafeString:
    """Return the state *name* on a ground of its tone."""
    return _state("pill", name, word)


@register.simple_tag
def when(moment: datetime | None, never: str = "never") -> SafeString:
    """Return how long ago *moment* is, with the exact time in UTC as its title."""
    return format_html('<span class="quiet">{}</span>', never) if moment is None else display.relative(moment)


@register.simple_tag
def exact(moment: datetime) -> SafeString:
    """Return *moment* to the second, in UTC."""
    return display.exact(moment)


@register.filter
def in_utc(moment: datetime) -> str:
    """Return *moment* to the second, in UTC, as plain text for attributes."""
    return display.in_utc(moment)


@register.simple_tag
def copy(element: str, name: str) -> SafeString:
    """Return a button that copies the text of *element*, an id; *name* says to screen readers what it copies."""
    return format_html(
        '<button type="button" class="little copy" data-copy="{}">{}<span class="copy-word">Copy</span>'
        '<span class="hidden"> {}</span></button>',
        element,
        icon("copy"),
        name,
    )


@register.simple_tag
def copy_from(beginning: str, slug: str, name: str) -> SafeString:
    """Return a button that copies the text of the element with the id *beginning*-*slug*."""
    return copy(f"{beginning}-{slug}", name)


@register.filter
def unlocalized(found: Any) -> str:
    """Return *found* without separators."""
    return str(found)


@register.filter
def shown(found: Any) -> str:
    """Return the value of a reading as people read it."""
    return display.value(found)


@register.filter
def sign(unit: str) -> str:
    """Return the usual sign of a SenML unit."""
    return display.unit(unit)


@register.filter
def reading_name(reading: Reading) -> str:
    """Return the name of a declared reading."""
    return str(reading.verbose_name or reading.name.replace("_", " "))


@register.filter
def number(found: Any) -> str:
    """Return an integer with separators, and an en dash for None."""
    return "–" if found is None else f"{found:,}"


@register.filter
def message_tone(level: str) -> str:
    return MESSAGES.get(level, OTHER_MESSAGE)[0]


@register.filter
def message_icon(level: str) -> str:
    return MESSAGES.get(level, OTHER_MESSAGE)[1]


@register.filter
def initials(user: Any) -> str:
    """Return at most two letters for the avatar of *user*."""
    words = (user.get_full_name() or user.get_username()).split()
    return "".join(word[0] for word in words[:2]).upper() or "?"


@register.filter
def limits(user: Any) -> str:
    """Return the sites to which *user* is limited, or "" without a limit."""
    sites = visibility.sites_of(user)
    return "" if sites is None else ", ".join(sorted(sites)) or "no site"


@register.filter
def is_checkbox(field: BoundField) -> bool:
    return isinstance(field.field.widget, CheckboxInput)


@register.filter
def is_radio(field: BoundField) -> bool:
    return isinstance(field.field.widget, RadioSelect)
