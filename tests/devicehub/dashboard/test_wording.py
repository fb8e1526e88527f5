"""Texts with counts use the singular for one, and an empty list says why it is empty."""

from __future__ import annotations

import runpy
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.core.management import call_command
from django.template.loader import render_to_string
from django.test import Client
from django.utils import timezone

from authsvc.models import Denial
from devicehub.conf import rate_limit
from devicehub.dashboard import display, overview
from devicehub.dashboard.confirmation import Confirmation
from devicehub.messages import cbor
from devicehub.models import CountedRefusal, DeviceCommand
from devicehub.removal import requests
from devicehub.simulation.run import Result, Totals
from fleet.models import IrrigationValveDevice, WeatherStationDevice, WeatherStationReading

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_only, pytest.mark.pages]


@pytest.fixture
def page(admin_client: Client):
    def get(path: str = "/") -> str:
        return " ".join(admin_client.get(path).content.decode().split())

    return get


def stations(count: int) -> list[WeatherStationDevice]:
    return [WeatherStationDevice.objects.create(device_id=f"STATION-{n}") for n in range(count)]


def test_the_dashboard_counts_devices_of_a_type(page):
    stations(1)
    assert ">1 device<" in page()

    IrrigationValveDevice.objects.create(device_id="VALVE-1")
    IrrigationValveDevice.objects.create(device_id="VALVE-2")
    assert ">2 devices<" in page()


def test_a_type_without_devices_has_no_card_whatever_the_filter(page):
    stations(1)

    for query in ("/", "/?q=STATION", "/?status=error"):
        assert 'id="kind-weatherstation"' in page(query)
        assert 'id="kind-irrigationvalve"' not in page(query)
    assert "No device of this kind matches the filter." not in page("/?q=STATION")
    assert "No device of this kind matches the filter." in page("/?q=nothing")


@pytest.mark.parametrize(("count", "words"), [(1, "1 time"), (2, "2 times")])
def test_the_dashboard_counts_denials(page, count, words):
    now = timezone.now()
    Denial.objects.create(
        dialect="amqtt", action="publish", reason="no_grant", count=count, first_at=now, last_at=now
    )

    assert f'title="{words}"' in page()


def test_large_numbers_are_grouped_on_the_overview(page, monkeypatch):
    now = timezone.now()
    stations(1)
    times = {"reason": "not_json", "first_at": now, "last_at": now, "count": 12_345}
    CountedRefusal.objects.create(device_key="weatherstation/STATION-0", **times)
    Denial.objects.create(dialect="amqtt", action="publish", topic="a/b", **{**times, "reason": "no_grant"})
    monkeypatch.setattr(overview, "_count", lambda user: overview.Counts(12_345, 12_345, 12_345, 12_345, {}))

    shown = page()

    assert "12,345 more, not kept" in shown
    assert 'title="12,345 times"' in shown
    assert "12,345 of 12,345 devices connected" in shown
    assert "12345" not in shown


def test_a_list_of_the_admin_groups_its_count_and_the_number_to_type():
    listed = {"cl": SimpleNamespace(result_count=12_345), "pagination_required": False, "noun": "grants"}
    assert "12,345 grants" in render_to_string("devicehub/admin/pagination.html", listed)

    ask = Confirmation("Remove them?", "They go.", verb="Remove", keep="Keep", keep_url="/", count=12_345)
    assert "Type the number 12,345 to go on" in render_to_string("devicehub/confirm.html", {"ask": ask})


def test_the_admin_counts_what_goes_with_a_device(page):
    (station,) = stations(1)
    WeatherStationReading.objects.create(device=station, timestamp=timezone.now())

    text = page(f"/admin/fleet/weatherstationdevice/{station.pk}/delete/")

    assert "1 reading, 0 messages" in text


def test_the_admin_counts_commands_that_stay(admin_client: Client):
    kept = [DeviceCommand.objects.create(device_key="a/b", name="reboot", state="answered") for _ in range(2)]

    def cancel(*chosen: DeviceCommand) -> str:
        ids = [str(command.pk) for command in chosen]
        answer = admin_client.post(
            "/admin/devicehub/devicecommand/", {"action": "cancel", "_selected_action": ids}, follow=True
        )
        return answer.content.decode()

    assert "1 not cancelled: it had ended, is being sent or may have arrived." in cancel(kept[0])
    assert "2 not cancelled: they had ended, are being sent or may have arrived." in cancel(*kept)


def test_commands_count(tmp_path):
    written = StringIO()
    call_command(
        "provision_devices",
        "weatherstation",
        count=1,
        prefix="NEW-",
        output=str(tmp_path / "new.json"),
        stderr=written,
    )
    assert written.getvalue() == "Provisioned 1 device of type weatherstation\n"

    WeatherStationReading.objects.create(
        device=WeatherStationDevice.objects.get(), timestamp=timezone.now() - timedelta(days=1)
    )
    erased = StringIO()
    call_command("erase_device", "weatherstation", "NEW-001", yes=True, stdout=erased)
    assert "1 reading, 0 messages, " in erased.getvalue()


def test_an_import_counts(tmp_path):
    file = tmp_path / "passwd"
    file.write_text("old-1:$2b$04$abcdefghijklmnopqrstuuO2Y3vnZ5m5xCAzCqwZyVB6M0QyRvJ6K\n")
    written = StringIO()
    call_command("import_credentials", str(file), type="weatherstation", apply=True, stdout=written)

    assert written.getvalue().endswith("1 device written.\n")


def test_a_simulation_counts():
    def of(number: int) -> str:
        tally = Totals(**dict.fromkeys(vars(Totals()), number))
        times = {"connect_seconds": 0.0, "seconds": 1.0}
        counts = dict.fromkeys(("connected", "acknowledged", "refused", "unacknowledged", "seed"), number)
        return str(Result(devices=number, tally=tally, **times, **counts))

    assert "Published 1 message as 1 device, " in of(1)
    assert "1 late sample in 1 batch, 1 message in 1 burst, 1 command obeyed, 1 connection lost" in of(1)
    assert "2 late samples in 2 batches, 2 messages in 2 bursts, 2 commands obeyed" in of(2)


def test_the_demo_counts():
    demo = runpy.run_path(str(settings.BASE_DIR / "script" / "demo"))

    assert demo["line"](1, 1, 1) == "1 station connected, 1 reading stored, 1 denial"
    assert demo["line"](8, 1234, 0) == "8 stations connected, 1,234 readings stored, 0 denials"


def test_the_rest_counts_too():
    assert (display.value(b"1"), display.value(b"12")) == ("1 byte", "2 bytes")
    assert str(rate_limit("1/m")) == "1 message in 60 s"
    for left, words in ((b"\x00", "1 byte follows"), (b"\x00\x00", "2 bytes follow")):
        with pytest.raises(ValueError, match=words):
            cbor.read(b"\x00" + left)
    assert requests.FEW > 1  # A count above it is shown as "more than FEW", which is a plural.
