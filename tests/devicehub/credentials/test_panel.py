"""The state of credentials in words, and as bars over time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.template.loader import render_to_string
from django.utils import timezone

from authsvc.credentials import UNTIL_USED
from authsvc.models import LastLogin
from devicehub import provisioning
from devicehub.credentials import panel
from devicehub.kinds.registry import registry
from devicehub.provisioning import kind_of
from fleet.models import WeatherStationDevice
from rig.cast import provision

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
KEY = "weatherstation/STATION-001"


@pytest.fixture
def device():
    return provision("STATION-001").device


def of(device):
    return panel.of(kind_of("weatherstation"), device)


def login(device, **times):
    now = timezone.now()
    return LastLogin.objects.create(
        **{"key": KEY, "first_at": now, "at": now, "broker": "orchard", "client_id": "STATION-001", **times}
    )


def test_new_credentials_are_not_used_yet_and_then_valid(device):
    assert of(device).word == "Not used yet"

    login(device, address="10.4.2.31")

    found = of(device)
    assert (found.word, found.tone) == ("Valid", "good")
    page = render_to_string("devicehub/_credentials.html", {"panel": found, "credentials_url": "/here/"})
    for text in ("orchard", "10.4.2.31", "/here/#rotate", device.mqtt_username):
        assert text in page


def test_a_device_made_by_code_has_none(db):
    device = WeatherStationDevice.objects.create(device_id="STATION-009")

    assert (of(device).state, of(device).bars) == ("none", None)


def test_an_expiry_is_named_two_weeks_before_and_then_over(device):
    login(device)
    provisioning.set_expiry(device, timezone.now() + timedelta(days=20))
    assert of(device).word == "Valid"

    provisioning.set_expiry(device, timezone.now() + timedelta(days=6, hours=1))
    assert of(device).word == "Ends in 6 d"

    provisioning.set_expiry(device, timezone.now() - timedelta(hours=1))
    assert of(device).word == "Expired"


def test_an_overlap_says_whether_the_new_password_was_used(device):
    provisioning.rotate_password(device, valid_until=timezone.now() + timedelta(days=1))
    before = of(device)
    login(device, current_at=timezone.now(), current_mark=device.password_mark, previous_at=timezone.now())
    after = of(device)

    assert (before.word, before.overlap.is_new_used, after.overlap.is_new_used) == ("Two valid", False, True)
    assert [bar.css for bar in before.bars.bars] == ["bar-now", "bar-old"]
    assert "The one before it is valid until 2" in before.bars.words


def test_times_are_of_utc_to_the_second_in_every_zone(device, settings):
    settings.TIME_ZONE = "Pacific/Auckland"
    until = datetime(2126, 12, 1, 23, 4, 5, tzinfo=UTC)
    provisioning.rotate_password(device, valid_until=until)
    provisioning.set_expiry(device, until + timedelta(days=1))
    page = render_to_string("devicehub/_credentials.html", {"panel": of(device), "credentials_url": ""})

    assert ">2126-12-01 23:04:05 UTC</time>" in page
    assert ">2126-12-02 23:04:05 UTC</time>" in page
    assert "valid until 2126-12-01 23:04:05 UTC." in page, "the bars in words"


@pytest.mark.parametrize("year", [1, 9000, 9999])
def test_an_expiry_far_away_has_bars(device, year):
    """People who mean never may write the last day that a calendar has."""
    provisioning.set_expiry(device, datetime(year, 12, 31, 23, 59, tzinfo=UTC))
    bars = of(device).bars

    assert f"until {year}-12-31 23:59:00 UTC." in bars.words
    assert all(0 <= float(bar.start.rstrip("%")) <= 100 for bar in bars.bars)


def test_an_overlap_until_use_has_no_date(device):
    provisioning.rotate_password(device, valid_until=UNTIL_USED)

    assert of(device).overlap.until is None
    assert of(device).bars.words.endswith("is valid until the new one is used.")


def test_a_revoked_device_says_so_until_it_gets_a_key(device):
    provisioning.revoke(device)
    assert of(device).word == "Revoked"

    provisioning.rotate_api_key(device)
    assert of(device).word == "API key only"


def test_the_buttons_say_what_their_page_does(device):
    def buttons():
        return render_to_string(
            "devicehub/_credentials.html", {"panel": of(device), "credentials_url": "/here/"}
        )

    assert ("Rotate password</a>" in buttons(), "Rotate API key</a>" in buttons()) == (True, True)

    provisioning.revoke(device)

    assert ("Make a password</a>" in buttons(), "Make an API key</a>" in buttons()) == (True, True)
    assert "Rotate" not in buttons()


def test_the_bars_stay_in_their_row(device):
    for until in (timezone.now() + timedelta(seconds=2), timezone.now() + timedelta(days=360), UNTIL_USED):
        provisioning.rotate_password(device, valid_until=until)
        for bar in of(device).bars.bars:
            start, width = float(bar.start.rstrip("%")), float(bar.width.rstrip("%"))
            assert 0 <= start <= 100
            assert 0 < width <= 100.6 - start


def test_the_panel_takes_one_query(device, django_assert_num_queries):
    assert registry.of(device) is not None
    with django_assert_num_queries(1):
        of(device)
