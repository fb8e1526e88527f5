"""Pruning: expired rows are deleted in portions, and rows that must not be lost stay."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone

from devicehub.db.batches import Pace, Stopped
from devicehub.history import rollups
from devicehub.models import QuarantinedMessage, Rollup
from devicehub.retention import pruning
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from rig.telemetry import DAY, DAYS, HOUR, figures, measure, prune, roll_up


class TestPruning:
    def test_a_type_keeps_what_it_says_and_everything_else_for_ever(self, station, neighbour, keeps):
        now = timezone.now()
        measure(station, (now - timedelta(days=40), 1.0), (now - timedelta(days=20), 2.0))
        keeps()
        assert [one["before"] for one in prune().values()] == [None] * 4

        keeps(readings=timedelta(days=30))
        report = prune()

        assert report["readings"]["deleted"] == 1
        assert [r.temperature for r in WeatherStationReading.objects.all()] == [2.0]
        assert report["readings"]["oldest"][:10] == (now - timedelta(days=20)).isoformat()[:10]
        assert prune()["readings"]["deleted"] == 0

    def test_readings_are_rolled_up_before_they_go(self, station):
        old = (timezone.now() - timedelta(days=60)).replace(minute=0, second=0, microsecond=0)
        measure(station, (old, 1.0), (old, 2.0))

        prune("--older-than", "30d")

        assert not WeatherStationReading.objects.exists()
        assert figures() == {old: (1.0, 2.0, 1.5, 2)}

    def test_a_row_that_is_not_rolled_up_stays(self, station, kind, monkeypatch):
        measure(station, (DAY, 1.0))
        roll_up()
        measure(station, (DAY, 2.0))
        monkeypatch.setattr(rollups, "roll_up", lambda **_: 0)  # The row came after the last roll-up.

        assert prune("--older-than", "30d")["readings"]["deleted"] == 1
        assert [r.temperature for r in WeatherStationReading.objects.all()] == [2.0]

    def test_many_rows_of_one_time_go_in_batches_too(self, station, kind):
        measure(station, *[(DAY, float(n)) for n in range(25)], (DAY + HOUR, 1.0), (DAY, 2.0))
        batches = []

        pruning.prune(kind, Pace(rows=4, report=batches.append), older_than=timedelta(days=1))

        assert not WeatherStationReading.objects.exists()
        assert max(batches) == 4
        assert sum(batches) == 27

    @pytest.mark.django_db(transaction=True)
    def test_two_at_once_delete_each_row_once_while_others_write(self, kind):
        station = WeatherStationDevice.objects.create(device_id="STATION-001")
        measure(station, *[(DAY + n * HOUR / 4, 1.0) for n in range(200)])

        def in_a_thread(action):
            try:
                return action()
            finally:
                connections.close_all()

        def prune_readings():
            return pruning.prune(kind, Pace(rows=7), older_than=timedelta(days=1))[0].deleted

        def write():
            return len([measure(station, (timezone.now(), 2.0)) for _ in range(50)])

        with ThreadPoolExecutor(3) as pool:
            one, other, written = pool.map(in_a_thread, (prune_readings, prune_readings, write))

        assert (one + other, written) == (200, 50)
        assert [r.temperature for r in WeatherStationReading.objects.all()] == [2.0] * 50
        assert sum(count for *_, count in figures(DAYS).values()) >= 200

    def test_messages_and_the_quarantine_go_by_the_time_they_came(self, station, keeps, settings):
        now = timezone.now()
        for days in (50, 40, 5):
            received = now - timedelta(days=days)
            row = WeatherStationMessage.objects.create(device=station, topic=f"{days}")
            WeatherStationMessage.objects.filter(pk=row.pk).update(received_at=received)
            QuarantinedMessage.objects.create(
                reason="not_json", topic=f"{days}", payload=b"", received_at=received
            )
        keeps(messages="30d")
        settings.DEVICEHUB_KEEP_QUARANTINE = "45d"

        out = StringIO()
        call_command("prune_telemetry", batch=1, stdout=out)

        assert [m.topic for m in WeatherStationMessage.objects.all()] == ["5"]
        assert [m.topic for m in QuarantinedMessage.objects.order_by("topic")] == ["40", "5"]
        assert re.search(
            r"^weatherstation: messages: 2 deleted, older than [-0-9]+ [0-9]+:[0-9]+:[0-9]+ UTC",
            out.getvalue(),
            re.M,
        )
        assert "quarantine: 1 deleted" in out.getvalue()

    def test_a_dry_run_counts_and_changes_nothing(self, station):
        now = timezone.now()
        measure(station, (now - timedelta(days=40), 1.0), (now, 2.0))

        report = prune("--older-than", "30d", "--dry-run")

        assert report["readings"]["deleted"] == 1
        assert report["readings"]["oldest"][:10] == now.isoformat()[:10]
        assert WeatherStationReading.objects.count() == 2
        assert not Rollup.objects.exists()

    def test_a_stop_ends_after_the_batch_at_hand(self, station, kind):
        measure(station, *[(DAY + n * HOUR, 1.0) for n in range(10)])
        pace = Pace(rows=3)
        pace.report = lambda _: pace.stop.set()

        with pytest.raises(Stopped):
            pruning.prune(kind, pace, older_than=timedelta(days=1))

        assert WeatherStationReading.objects.count() == 7

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--older-than", "30d"], "needs a type"),
            (["nothing"], "There is no device type 'nothing'"),
            (["weatherstation", "--older-than", "5m"], "at least 1h"),
            (["weatherstation", "--older-than", "soon"], "not a duration"),
            (["weatherstation", "--batch", "0"], "is not a positive whole number"),
        ],
    )
    def test_what_cannot_be_done_is_said_in_a_line(self, db, arguments, says):
        with pytest.raises(CommandError, match=says):
            call_command("prune_telemetry", *arguments)

    @pytest.mark.parametrize("nonsense", ["soon", 30, "5m", timedelta(0), timedelta(days=-1), "30 d", True])
    def test_a_check_refuses_nonsense(self, keeps, nonsense):
        keeps(readings=nonsense)

        found = [error for error in run_checks() if error.id == "devicehub.E020"]

        assert [error.msg.split(":")[1].strip() for error in found] == ["keep_readings"]

    def test_a_check_looks_at_the_quarantine_too(self, settings):
        assert not [error for error in run_checks() if error.id == "devicehub.E020"]
        settings.DEVICEHUB_KEEP_QUARANTINE = "for ever"
        assert [error.id for error in run_checks() if "QUARANTINE" in error.msg] == ["devicehub.E020"]
