"""A kind without a DeviceType and without a table of readings works everywhere: the heat meters of `heat`."""

import json
from dataclasses import replace
from datetime import timedelta
from types import ModuleType

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection
from django.test import override_settings
from django.urls import clear_url_caches, include, path
from django.utils import timezone

from devicehub import commands, removal, signals
from devicehub.admin import kinds as admin_of_kinds
from devicehub.dashboard import live
from devicehub.dashboard.chart import Chart
from devicehub.dashboard.selection import parse, plottable
from devicehub.db.batches import Pace
from devicehub.history import latest, rollups, rows
from devicehub.kinds import topics
from devicehub.kinds.declare import Hooks
from devicehub.kinds.registry import DuplicateKind, Kind, registry
from devicehub.kinds.store import Narrow
from devicehub.messages.message import FailureReason, Outcome
from devicehub.models import CommandState, DeviceCommand, QuarantinedMessage, Rollup
from devicehub.retention import division, partitions, pruning
from devicehub.retention.partition_sql import NotPartitioned
from rig.cast import provision
from rig.messages import NOW, fresh, send

pytestmark = [pytest.mark.usefixtures("heat"), pytest.mark.sqlite_first]


@pytest.fixture
def kind(heat, transactional_db):
    return registry.get("heatmeter")


@pytest.fixture
def meter(kind):
    """Return our own meter."""
    return provision("HEAT-001", "heatmeter")


@pytest.fixture
def neighbour(kind):
    """Return a meter that must stay out of our meter's reach."""
    return provision("HEAT-002", "heatmeter")


def values(heat, device):
    """Return the rows of values of *device*: key, value and time, oldest first."""
    rows = heat.HeatValue.objects.filter(device=device).order_by("timestamp", "key")
    return list(rows.values_list("key", "value", "timestamp"))


def own(device, about):
    return f"things/heatmeter/{device.device_id}/{about}"


class TestDirectory:
    def test_it_logs_in(self, ask, meter):
        asked = {"username": meter.username, "clientid": "HEAT-001"}

        assert ask("go-auth/user", password=meter.password, **asked).status_code == 200
        assert ask("go-auth/user", password="wrong", **asked).status_code == 403

    @pytest.mark.parametrize(
        ("about", "acc", "status"),
        [("data", 2, 200), ("status", 2, 200), ("reply", 2, 200), ("cmd", 4, 200), ("cmd", 2, 403)],
    )
    def test_it_has_its_own_topics(self, ask, meter, about, acc, status):
        asked = {"username": meter.username, "clientid": "HEAT-001"}

        answer = ask("go-auth/acl", acc=acc, topic=own(meter.device, about), **asked)

        assert answer.status_code == status

    def test_it_has_no_topic_of_its_neighbour(self, ask, meter, neighbour):
        asked = {"username": meter.username, "clientid": "HEAT-001"}

        answer = ask("go-auth/acl", acc=2, topic=own(neighbour.device, "data"), **asked)

        assert answer.status_code == 403

    def test_a_disabled_one_is_shut_out(self, ask, meter):
        asked = {"username": meter.username, "clientid": "HEAT-001", "password": meter.password}
        assert ask("go-auth/user", **asked).status_code == 200
        meter.device.is_active = False
        meter.device.save()

        assert ask("go-auth/user", **asked).status_code == 403


class TestTopics:
    def test_its_topics_are_subscribed_to_and_parsed(self, kind):
        assert "things/heatmeter/+/data" in topics.subscriptions()
        assert topics.parse("things/heatmeter/HEAT-001/data") == (kind, "HEAT-001", "data")

    def test_its_key_resolves(self, kind):
        assert registry.resolve("heatmeter/HEAT-001") == (kind, "HEAT-001")

    def test_the_checks_find_nothing(self, kind):
        assert [error for error in run_checks() if "heatmeter" in str(error)] == []


class TestIngest:
    def test_a_payload_becomes_rows_of_its_own(self, heat, meter):
        moment = NOW - timedelta(minutes=1)
        payload = {"energy": 120.5, "flow.3": 7, "timestamp": moment.isoformat()}

        assert send(meter.device, payload) is Outcome.STORED
        assert values(heat, meter.device) == [("energy", 120.5, moment), ("flow.3", 7.0, moment)]
        assert meter.device.messages.get().payload_json == payload
        assert fresh(meter.device).last_reading_at == moment

    def test_without_a_time_it_has_that_of_receipt(self, heat, meter):
        send(meter.device, {"energy": 1})

        assert values(heat, meter.device) == [("energy", 1.0, NOW)]

    def test_a_value_that_fits_not_leaves_a_note(self, heat, meter):
        assert send(meter.device, {"energy": 1, "flow": "much"}) is Outcome.PARTIAL
        assert [key for key, _, _ in values(heat, meter.device)] == ["energy"]
        assert "flow" in meter.device.messages.get().notes[0]

    def test_a_message_that_comes_twice_is_a_duplicate(self, heat, meter):
        payload = {"energy": 1, "timestamp": NOW.isoformat()}

        assert [send(meter.device, payload) for _ in range(2)] == [Outcome.STORED, Outcome.DUPLICATE]
        assert len(values(heat, meter.device)) == 1

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            (b"{", FailureReason.NOT_JSON),
            ([1, 2], FailureReason.NOT_A_READING),
            ({"flow": "much"}, FailureReason.NO_VALUE),
            ({}, FailureReason.NO_VALUE),
        ],
    )
    def test_a_bad_message_goes_to_the_quarantine(self, heat, meter, payload, reason):
        assert send(meter.device, payload) is Outcome.FAILED
        assert values(heat, meter.device) == []
        row = QuarantinedMessage.objects.get()
        assert (row.reason, row.device_key) == (reason, "heatmeter/HEAT-001")

    def test_what_its_store_cannot_write_goes_to_the_quarantine(self, heat, meter, monkeypatch):
        def fail(measured, received_at):
            raise ValueError("no room")

        monkeypatch.setattr(registry.get("heatmeter").store, "write", fail, raising=False)

        assert send(meter.device, {"energy": 1}) is Outcome.FAILED
        assert QuarantinedMessage.objects.get().reason == FailureReason.UNSTORABLE

    def test_a_bug_of_its_store_harms_one_message(self, meter, monkeypatch):
        monkeypatch.setattr(registry.get("heatmeter").store, "read", lambda *_: 1 / 0, raising=False)

        assert send(meter.device, {"energy": 1}) is Outcome.FAILED
        assert send(meter.device, {"status": "online"}, "status") is Outcome.STORED

    def test_too_many_samples_are_refused(self, meter, settings):
        settings.DEVICEHUB_MAX_SAMPLES = 0

        assert send(meter.device, {"energy": 1}) is Outcome.FAILED
        assert QuarantinedMessage.objects.get().reason == FailureReason.TOO_MANY_SAMPLES

    def test_receivers_hear_of_it_from_its_device_model(self, heat, meter):
        heard = []

        def receiver(sender, device, readings, message, **_):
            heard.append((sender, device.device_id, readings, message.topic))

        signals.device_data_received.connect(receiver, sender=heat.HeatMeter)
        try:
            send(meter.device, {"energy": 1})
        finally:
            signals.device_data_received.disconnect(receiver, sender=heat.HeatMeter)

        assert heard == [(heat.HeatMeter, "HEAT-001", {"energy": 1}, own(meter.device, "data"))]

    def test_its_hooks_are_called(self, kind, meter):
        heard = []

        class Loud(Hooks):
            def on_data(self, device, readings):
                heard.append((device.device_id, readings))

        registry.unregister("heatmeter")
        registry.register(replace(kind, hooks=Loud))
        try:
            send(meter.device, {"energy": 1})
        finally:
            registry.unregister("heatmeter")
            registry.register(kind)

        assert heard == [("HEAT-001", {"energy": 1.0})]


class TestPresence:
    def test_it_is_there_and_gone(self, meter):
        send(meter.device, {"status": "online", "battery_level": 80}, "status")
        there = fresh(meter.device)
        send(meter.device, {"status": "offline"}, "status", at=NOW + timedelta(seconds=1))
        gone = fresh(meter.device)

        assert (there.connected, there.status, there.battery_level) == (True, "online", 80)
        assert (gone.connected, gone.status) == (False, "offline")


class TestCommands:
    def test_a_command_is_sent_and_answered(self, meter, published):
        command_id = meter.device.send_command("read_out", {"register": 7})
        commands.send_due()

        [message] = published
        assert message.topic == own(meter.device, "cmd")
        assert json.loads(message.payload) == {
            "id": command_id,
            "command": "read_out",
            "payload": {"register": 7},
        }
        now = timezone.now()
        assert send(meter.device, {"id": command_id, "ok": True}, "reply", at=now) is Outcome.STORED
        assert DeviceCommand.objects.get().state == CommandState.ANSWERED

    @pytest.mark.parametrize(("name", "payload"), [("explode", None), ("read_out", None)])
    def test_a_command_that_is_not_declared_so_is_refused(self, meter, name, payload):
        with pytest.raises(ValueError):
            meter.device.send_command(name, payload)


class TestKeeping:
    def test_old_values_are_pruned(self, heat, kind, meter):
        now = timezone.now()
        for ago in (1, 200):
            send(meter.device, {"energy": ago}, at=now - timedelta(days=ago))
        before = pruning.preview(kind)[0]
        done = pruning.prune(kind, Pace())[0]

        assert (before.what, before.deleted, done.deleted) == ("readings", 1, 1)
        assert [value for _, value, _ in values(heat, meter.device)] == [1]

    def test_nothing_is_rolled_up_and_nothing_partitioned(self, kind, meter):
        send(meter.device, {"energy": 1})

        assert rollups.roll_up(kinds=[kind]) == 0
        assert partitions.extend_all(kinds=[kind]) == 0
        with pytest.raises(NotPartitioned):
            division.plan(kind, "month")


class TestNarrowTable:
    """A store that names its narrow table gets rollups and the chart for its values."""

    @pytest.fixture(autouse=True)
    def narrow(self, heat, kind, monkeypatch):
        narrow = Narrow(heat.HeatValue, name_column="key", value_column="value")
        monkeypatch.setattr(heat.HeatStore, "narrow", narrow, raising=False)

    def test_its_values_are_rolled_up_and_kept_by_the_hour(self, heat, kind, meter):
        old = timezone.now() - timedelta(days=200)
        send(meter.device, {"energy": 1, "flow": 7}, at=old)
        send(meter.device, {"energy": 3}, at=old)

        done = pruning.prune(kind, Pace())[0]

        assert (done.deleted, heat.HeatValue.objects.count()) == (3, 0)
        hours = Rollup.objects.filter(device_key="heatmeter/HEAT-001", period="hour").order_by("name")
        assert [(row.name, row.mean, row.count) for row in hours] == [("energy", 2.0, 2), ("flow", 7.0, 1)]

    def test_its_columns_are_choices_of_the_chart(self, kind, meter):
        send(meter.device, {"energy": 120.5}, at=timezone.now())
        names = [choice.name for choice in plottable() if choice.kind is kind]
        chart = Chart(parse({"reading": names[0]}).plotted, 900, get_user_model()(is_superuser=True))

        loaded = chart.load(timezone.now())

        assert names == ["heatmeter.energy", "heatmeter.flow"]
        assert (loaded["unit"], [one["v"] for one in loaded["series"]]) == ("kWh", [[120.5]])

    def test_the_names_of_a_device_are_listed(self, kind, meter, neighbour):
        send(meter.device, {"flow.3": 1, "energy": 2})
        send(neighbour.device, {"power": 1})

        assert rows.names(kind, meter.device.pk) == ["energy", "flow.3"]


class TestRemoval:
    @pytest.fixture
    def spoken(self, heat, meter, neighbour):
        for device in (meter.device, neighbour.device):
            send(device, {"energy": 1})
            send(device, b"{")

    def test_erase_removes_everything_of_it(self, heat, kind, meter, neighbour, spoken):
        done = removal.erase(kind, "HEAT-001", Pace())

        assert (done.device, done.readings, done.messages, done.quarantine) == (1, 1, 2, 1)
        assert values(heat, neighbour.device) == [("energy", 1.0, NOW)]
        assert heat.HeatMessage.objects.count() == 2
        assert QuarantinedMessage.objects.get().device_key == "heatmeter/HEAT-002"

    def test_a_deletion_takes_its_rows(self, heat, meter, neighbour, spoken):
        fresh(meter.device).delete()

        assert [row.device_id for row in heat.HeatValue.objects.all()] == [neighbour.device.pk]
        assert heat.HeatMessage.objects.filter(device_id=meter.device.pk).count() == 0

    def test_a_requested_removal_is_worked_off(self, heat, meter, neighbour, spoken):
        removal.request(fresh(meter.device))

        assert removal.work_off() == 1
        assert list(heat.HeatMeter.objects.values_list("device_id", flat=True)) == ["HEAT-002"]
        assert len(heat.HeatValue.objects.all()) == 1

    def test_the_command_erases_it(self, heat, meter, spoken):
        call_command("erase_device", "heatmeter", "HEAT-001", "--yes", verbosity=0)

        assert list(heat.HeatMeter.objects.values_list("device_id", flat=True)) == ["HEAT-002"]


@pytest.fixture
def site(heat, kind, client):
    """Return a client that is signed in as a superuser; the URLs are made with the admin of the kind."""
    admin_of_kinds.register(kind)
    urls = ModuleType("urls")
    urls.urlpatterns = [path("admin/", admin.site.urls), path("", include("devicehub.urls"))]
    client.force_login(get_user_model().objects.create_superuser("root"))
    with override_settings(ROOT_URLCONF=urls):
        clear_url_caches()
        yield client
    clear_url_caches()
    for model in (heat.HeatMeter, heat.HeatMessage, heat.HeatValue):
        admin.site.unregister(model)


class TestPages:
    def test_the_admin_lists_its_models(self, site, meter):
        send(meter.device, {"energy": 120.5})

        for model, text in (
            ("heatmeter", "HEAT-001"),
            ("heatvalue", "energy"),
            ("heatmessage", own(meter.device, "data")),
        ):
            page = site.get(f"/admin/heat/{model}/")
            assert page.status_code == 200
            assert text in page.content.decode()
        page = site.get(f"/admin/heat/heatmeter/{meter.device.pk}/change/")
        assert page.status_code == 200
        assert meter.device.mqtt_password_hash not in page.content.decode()

    def test_the_admin_of_a_model_may_be_its_own(self, site, meter):
        meter.device.firmware_version = "heat-7.1"
        meter.device.save()

        assert "heat-7.1" in site.get("/admin/heat/heatmeter/").content.decode()

    def test_the_admin_deletes_it(self, heat, site, meter):
        send(meter.device, {"energy": 1})
        url = f"/admin/heat/heatmeter/{meter.device.pk}/delete/"

        assert "1 reading" in site.get(url).content.decode()
        assert site.post(url, {"post": "yes"}).status_code == 302
        assert not heat.HeatMeter.objects.exists()

    def test_the_dashboard_shows_it_with_its_newest_values(self, site, meter):
        send(meter.device, {"energy": 120.5, "secret": 1})
        send(meter.device, {"energy": 121.5}, at=NOW + timedelta(minutes=1))
        text = site.get("/").content.decode()

        assert "Heat Meter" in text
        assert "HEAT-001" in text
        assert "<b>121.50</b>" in text
        assert "Flow" in text
        assert "secret" not in text

    def test_an_open_page_hears_of_it(self, site, meter):
        watch = live.Watch(parse({}), get_user_model()(is_superuser=True))
        watch.start()
        send(meter.device, {"energy": 5})

        assert "<b>5.00</b>" in watch.look()["rows"]["heatmeter/HEAT-001"]

    def test_it_is_not_in_the_chart(self, kind):
        assert [one for one in plottable() if one.kind is kind] == []

    def test_the_newest_values_are_found(self, kind, meter):
        send(meter.device, {"energy": 1, "flow": 2})
        found = latest.values(kind, [meter.device.pk], ["energy", "volume"])

        assert found == {(meter.device.pk, "energy"): (1.0, NOW)}


def test_a_slug_is_taken_once(heat, kind):
    with pytest.raises(DuplicateKind, match=r"heat\.models\.HeatMeter"):
        registry.register(Kind("heatmeter", heat.HeatMeter, heat.HeatMessage))


def test_the_models_have_a_migration(heat, db):
    call_command("makemigrations", "heat", check=True, verbosity=0)
    assert heat.HeatValue._meta.db_table in connection.introspection.table_names()
