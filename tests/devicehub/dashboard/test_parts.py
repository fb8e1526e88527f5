"""The small parts of pages: states, times, buttons that copy, fields, pages by key, and the page that asks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django import forms
from django.conf import settings
from django.template import Context, Template
from django.template.loader import render_to_string
from django.utils import timezone

from devicehub.dashboard import confirmation
from devicehub.dashboard.confirmation import Confirmation, is_confirmed
from devicehub.templatetags.devicehub_parts import STATES

pytestmark = [pytest.mark.sqlite_only, pytest.mark.pages]
STATIC = Path(settings.BASE_DIR) / "devicehub" / "static" / "devicehub"
TEMPLATES = Path(settings.BASE_DIR) / "devicehub" / "templates" / "devicehub"


def draw(text: str, **context: object) -> str:
    return Template("{% load devicehub_parts %}" + text).render(Context(context))


def test_a_state_has_a_glyph_a_tone_and_a_word():
    drawn = draw('{% state "silent" %}')

    assert 'class="state warn"' in drawn
    assert "icons.svg#g-silent" in drawn
    assert drawn.endswith("Silent</span>")
    assert draw('{% pill "error" "Motor stalled" %}').endswith("Motor stalled</span>")


def test_every_glyph_and_icon_that_is_named_is_drawn():
    symbols = set(re.findall(r'<symbol id="([ig]-[a-z]+)"', (STATIC / "icons.svg").read_text()))
    named = {f"g-{look.glyph}" for look in STATES.values()}
    for page in TEMPLATES.glob("*.html"):
        named |= {f"i-{name}" for name in re.findall(r'{% icon "([a-z]+)"', page.read_text())}

    assert named <= symbols


def test_a_time_is_in_words_with_the_exact_one_as_its_title():
    moment = timezone.now() - timedelta(minutes=44)

    drawn = draw("{% when moment %}", moment=moment)

    assert ">44 min ago</time>" in drawn
    assert f'title="{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"' in drawn
    assert "never" in draw("{% when moment %}", moment=None)


def test_an_exact_time_is_in_utc_to_the_second_and_stays():
    moment = datetime(2026, 12, 1, 6, 3, 41, tzinfo=UTC)

    drawn = draw(
        "{% exact moment %}|{{ moment|in_utc }}", moment=moment.astimezone(ZoneInfo("Pacific/Auckland"))
    )

    time = '<time class="exact" datetime="2026-12-01T06:03:41+00:00">2026-12-01 06:03:41 UTC</time>'
    assert drawn == f"{time}|2026-12-01 06:03:41 UTC"
    assert "time:not(.exact)" in (STATIC / "time.js").read_text(), "a script keeps the others current"


def test_times_are_drawn_by_the_tags_alone():
    """The filter `date` writes the time of the zone of the project, and each page had another format."""
    pages = [
        page
        for page in (Path(settings.BASE_DIR) / "devicehub").rglob("templates/**/*.html")
        if re.search(r"\|(date|time):?\b", page.read_text())
    ]

    assert pages == []


def test_a_copy_button_says_what_it_copies():
    drawn = draw('{% copy "p" "the password" %}')

    assert 'data-copy="p"' in drawn
    assert '<span class="hidden"> the password</span>' in drawn


def test_a_number_is_grouped_and_a_missing_one_is_a_dash():
    assert draw("{{ 1284|number }} {{ none|number }}", none=None) == "1,284 –"


class Named(forms.Form):
    name = forms.CharField(help_text="As on the label.")
    note = forms.CharField(required=False)
    sure = forms.BooleanField(required=False)


def test_a_field_is_read_with_its_help_and_its_error():
    drawn = render_to_string("devicehub/_form.html", {"form": Named({"name": ""})})

    assert 'id="id_name_helptext"' in drawn
    assert 'id="id_name_error"' in drawn
    assert re.search(r'<input[^>]*name="name"[^>]*aria-invalid="true"', drawn)
    assert drawn.count('class="optional"') == 1


def test_a_pager_has_only_the_ways_that_exist():
    drawn = render_to_string("devicehub/_pager.html", {"previous": "", "next": "?after=9"})

    assert 'rel="next" href="?after=9"' in drawn
    assert 'rel="prev"' not in drawn
    assert "<nav" not in render_to_string("devicehub/_pager.html", {"previous": "", "next": ""})


def ask(count: int) -> Confirmation:
    return Confirmation(
        f"Revoke {count} devices?",
        "They cannot sign in.",
        "Revoke",
        "Keep them",
        "/",
        count,
        [("key", "a/<b>")],
    )


def test_a_confirmation_of_many_is_typed(rf):
    few, many = {"confirmed": "yes"}, {"confirmed": "yes", "typed": "1,200"}

    assert is_confirmed(rf.post("/", few), 10)
    assert not is_confirmed(rf.post("/", few), 11)
    assert is_confirmed(rf.post("/", many), 1200)
    assert not is_confirmed(rf.post("/", many), 1201)
    assert not is_confirmed(rf.get("/", few), 1)
    assert not is_confirmed(rf.post("/"), 1)


def test_the_page_that_asks_names_the_act_and_repeats_what_was_chosen(rf):
    first = confirmation.page(rf.post("/"), ask(12)).content.decode()
    again = confirmation.page(rf.post("/", {"confirmed": "yes", "typed": "11"}), ask(12)).content.decode()

    assert '<h1 id="ask">Revoke 12 devices?</h1>' in first
    assert 'name="key" value="a/&lt;b&gt;"' in first
    assert "csrfmiddlewaretoken" in first
    assert "The number is not 12." not in first
    assert "The number is not 12." in again
    assert 'name="typed"' not in confirmation.page(rf.post("/"), ask(10)).content.decode()


def test_a_moment_of_another_zone_is_shown_in_utc():
    moment = datetime.fromisoformat("2026-11-30T14:00:00+02:00")

    assert 'title="2026-11-30 12:00:00 UTC"' in draw("{% when moment %}", moment=moment)
