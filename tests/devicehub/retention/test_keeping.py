"""What is kept and for how long: rollups, pruning, partitions, and devices that end. Alike on both databases."""

import json
import math
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from io import StringIO

import psycopg
import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections, models, transaction
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils import timezone
from structlog.testing import capture_logs

from authsvc.models import Denial, Grant
from devicehub import provisioning, removal
from devicehub.dashboard.chart import Chart, Tail
from devicehub.dashboard.selection import parse
from devicehub.db.batches import Pace, Stopped
from devicehub.history import rollup_sql, rollups
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds import topics
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message
from devicehub.models import (
    DeviceCommand,
    QuarantinedMessage,
    RemovalRequest,
    RetainedTopic,
    RolledUp,
    Rollup,
)
from devicehub.mqtt import BrokerAddress, Connection, Listener, Outgoing
from devicehub.removal import retained
from devicehub.retention import partition_sql, partitions, pruning
from devicehub.worker.loop import _message
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from rig import servers
from rig.hub import ROOT, database_url, environment, eventually

DAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS, DAYS = Rollup.Period.HOUR, Rollup.Period.DAY


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nobody else writes, so nobody must be let in."""
    monkeypatch.setattr("devicehub.db.batches.REST", {"sqlite": 0, "postgresql": 0})


@pytest.fixture
def kind():
    return registry.get("weatherstation")


@pytest.fixture
def station(db):
    """Ours."""
    return WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")


@pytest.fixture
def neighbour(db):
    """Whose data must stay as they are."""
    return WeatherStationDevice.objects.create(device_id="STATION-002", mqtt_username="neighbour")


@pytest.fixture
def keeps(monkeypatch):
    """Let weather stations keep things for so long: `keeps(readings="30d")`."""

    def keep(**wanted):
        meta = {f"keep_{name}": value for name, value in wanted.items()}
        monkeypatch.setattr("fleet.devices.WeatherStation.Meta", type("Meta", (), meta))

    return keep


def measure(device, *points):
    """Store readings, each a time and a temperature, in the order given; their rows."""
    return WeatherStationReading.objects.bulk_create(
        WeatherStationReading(device=device, timestamp=moment, temperature=value, received_at=timezone.now())
        for moment, value in points
    )


def roll_up():
    while rollups.roll_up():
        pass


def figures(period=HOURS, name="temperature", key="weatherstation/STATION-001"):
    """The rollups of a reading as {start: (low, high, mean, count)}."""
    rows = Rollup.objects.filter(device_key=key, name=name, period=period)
    return {r.start: (r.low, r.high, pytest.approx(r.mean), r.count) for r in rows}


def prune(*arguments):
    """The report of `prune_telemetry weatherstation --json` by table."""
    out = StringIO()
    call_command("prune_telemetry", "weatherstation", "--json", *arguments, stdout=out, stderr=StringIO())
    return {one["what"]: one for one in json.loads(out.getvalue())["weatherstation"]}


class TestRollups:
    def test_an_hour_and_a_day_have_lowest_highest_mean_and_number(self, station):
        measure(station, (DAY, 1.0), (DAY + HOUR / 2, 4.0), (DAY + HOUR, 10.0), (DAY + 2 * HOUR, None))

        assert rollups.roll_up() == 4
        assert figures() == {DAY: (1.0, 4.0, 2.5, 2), DAY + HOUR: (10.0, 10.0, 10.0, 1)}
        assert figures(DAYS) == {DAY: (1.0, 10.0, 5.0, 3)}
        assert rollups.roll_up() == 0

    def test_a_second_before_the_hour_and_one_on_it_are_in_different_hours(self, station):
        measure(station, (DAY + HOUR - timedelta(microseconds=1), 1.0), (DAY + HOUR, 2.0))
        roll_up()

        assert list(figures()) == [DAY, DAY + HOUR]

    def test_late_and_unordered_rows_count_where_they_belong(self, station, neighbour):
        """However rows arrive and are cut into steps, the figures are those of all rows together."""
        draw = random.Random(7)
        points = [
            (DAY + timedelta(seconds=draw.randrange(3 * 86_400)), draw.randrange(100)) for _ in range(400)
        ]
        for begin in range(0, 400, 80):
            measure(station, *points[begin : begin + 80])
            measure(neighbour, (DAY, float(begin)))
            rollups.roll_up(limit=draw.randrange(1, 60))
        roll_up()

        for period, width in ((HOURS, HOUR), (DAYS, timedelta(days=1))):
            expected = {}
            for moment, value in points:
                expected.setdefault(DAY + (moment - DAY) // width * width, []).append(value)
            assert figures(period) == {
                start: (min(values), max(values), sum(values) / len(values), len(values))
                for start, values in expected.items()
            }

    def test_what_comes_after_its_hour_was_pruned_is_added_to_what_is_known(self, station):
        now = timezone.now()
        old = (now - timedelta(days=60)).replace(minute=0, second=0, microsecond=0)
        measure(station, (old, 1.0), (old + HOUR / 4, 3.0))
        assert prune("--older-than", "30d")["readings"]["deleted"] == 2

        measure(station, (old + HOUR / 2, 11.0))
        roll_up()

        assert figures() == {old: (1.0, 11.0, 5.0, 3)}
        assert list(figures(DAYS).values()) == [(1.0, 11.0, 5.0, 3)]

    def test_a_day_whose_hours_are_gone_still_takes_what_comes_late(self, station, keeps):
        keeps(readings="10d", hours="20d")
        old = (timezone.now() - timedelta(days=60)).replace(hour=0, minute=0, second=0, microsecond=0)
        measure(station, (old, 1.0), (old + 3 * HOUR, 3.0))
        report = prune()
        assert (report["readings"]["deleted"], report["hours"]["deleted"]) == (2, 6 // 3)

        measure(station, (old + 4 * HOUR, 4.0), (old + 5 * HOUR, 8.0))
        roll_up()

        assert figures() == {}
        assert figures(DAYS) == {old: (1.0, 8.0, 4.0, 4)}

    def test_without_its_hours_a_day_is_the_same(self, station, keeps):
        """Whatever was pruned before the rows are taken in."""
        old = (timezone.now() - timedelta(days=60)).replace(hour=0, minute=0, second=0, microsecond=0)
        keeps(hours="20d")
        prune()
        WeatherStationReading.objects.bulk_create(
            WeatherStationReading(
                device=station, timestamp=old + n * HOUR, temperature=n, humidity=None if n % 3 else 50
            )
            for n in range(48)
        )
        roll_up()

        assert figures() == {}
        assert figures(DAYS) == {
            old: (0.0, 23.0, 11.5, 24),
            old + timedelta(days=1): (24.0, 47.0, 35.5, 24),
        }
        assert [row[3] for row in figures(DAYS, "humidity").values()] == [8, 8]

    def test_nothing_of_a_device_that_was_deleted_meanwhile_is_written(self, station, kind, monkeypatch):
        measure(station, (DAY, 1.0))
        write = rollups._write

        def after_deletion(*arguments):
            station.delete()
            return write(*arguments)

        monkeypatch.setattr(rollups, "_write", after_deletion)
        roll_up()

        assert not Rollup.objects.exists()

    def test_what_another_process_took_in_meanwhile_counts_once(self, station, kind, monkeypatch):
        measure(station, (DAY, 1.0), (DAY, 3.0))
        write = rollups._write

        def after_another(*arguments):
            monkeypatch.setattr(rollups, "_write", write)
            rollups.roll_up(limit=1)
            return write(*arguments)

        monkeypatch.setattr(rollups, "_write", after_another)
        roll_up()

        assert figures() == {DAY: (1.0, 3.0, 2.0, 2)}
        assert (
            RolledUp.objects.get(kind="weatherstation").last_id
            == WeatherStationReading.objects.order_by("-pk")[0].pk
        )

    @pytest.mark.postgresql_only
    @pytest.mark.django_db(transaction=True)
    def test_a_row_with_a_lower_id_that_is_committed_later_is_not_missed(self, monkeypatch):
        """PostgreSQL gives out ids before the commit; on SQLite there is one writer at a time."""
        monkeypatch.setattr(rollups, "SETTLE_SECONDS", 0.1)
        station = WeatherStationDevice.objects.create(device_id="STATION-001")
        with psycopg.connect(database_url()) as slow:
            slow.execute(
                "INSERT INTO fleet_weatherstationreading (device_id, timestamp, received_at, temperature)"
                " VALUES (%s, %s, now(), 1)",
                [station.pk, DAY],
            )
            measure(station, (DAY, 3.0))
            assert rollups.roll_up() == 0
            slow.commit()

        roll_up()
        assert figures() == {DAY: (1.0, 3.0, 2.0, 2)}


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

    def test_a_row_that_no_rollup_knows_stays(self, station, kind, monkeypatch):
        measure(station, (DAY, 1.0))
        roll_up()
        measure(station, (DAY, 2.0))
        monkeypatch.setattr(rollups, "roll_up", lambda **_: 0)  # it came after the last look

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
        assert "weatherstation: messages: 2 deleted, older than" in out.getvalue()
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
            (["weatherstation", "--older-than", "soon"], "no duration"),
            (["weatherstation", "--batch", "0"], "no positive whole number"),
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


def sql(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


def table_of_readings():
    """What the database says about the table: indexes, constraints, sequence."""
    table = WeatherStationReading._meta.db_table
    indexes = sql(
        "SELECT relname, indkey::text FROM pg_index JOIN pg_class ON oid = indexrelid"
        f" WHERE indrelid = '{table}'::regclass AND NOT indisprimary"
    )
    keys = sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        f" WHERE conrelid = '{table}'::regclass AND contype = 'f'"
    )
    return sorted(indexes), sorted(keys), sql(f"SELECT pg_get_serial_sequence('{table}', 'id')")


@pytest.fixture
def months_of_readings(transactional_db):
    """A station with a reading each day of the last 100, one of long ago, and one of the future."""
    station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
    now = timezone.now()
    days = [(now - timedelta(days=n), float(n)) for n in range(100)]
    measure(station, *days, (now + timedelta(days=400), -1.0))
    yield station
    with connection.schema_editor() as editor:  # as the migrations of the tests that follow made it
        editor.execute("DROP TABLE fleet_weatherstationreading CASCADE")
        editor.create_model(WeatherStationReading)


@pytest.mark.sqlite_only
def test_sqlite_has_no_partitions(db):
    with pytest.raises(CommandError, match="Partitions need PostgreSQL; this database is SQLite"):
        call_command("partition_readings", "weatherstation", "--yes")


@pytest.mark.postgresql_only
class TestPartitions:
    def convert(self, *arguments):
        call_command("partition_readings", "weatherstation", "--yes", *arguments, stdout=StringIO())

    def test_everything_but_the_primary_key_stays_as_it_was(self, months_of_readings):
        before = table_of_readings(), list(WeatherStationReading.objects.values_list())

        self.convert("--batch", "7")

        assert (table_of_readings(), list(WeatherStationReading.objects.values_list())) == before
        found = partitions.partitions_of("fleet_weatherstationreading")
        assert found[-1].start is None
        assert {(p.start.day, p.end.day) for p in found[:-1]} == {(1, 1)}
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {found[-1].name}")
            assert cursor.fetchone() == (1,)  # the one of the future
        made = measure(months_of_readings, (timezone.now(), 5.0))[0]
        assert made.pk == max(row[0] for row in before[1]) + 1
        with pytest.raises(Exception, match="is not present in table"), transaction.atomic():
            measure(WeatherStationDevice(pk=10**9), (timezone.now(), 1.0))

    def test_what_is_written_meanwhile_is_there_afterwards(self, months_of_readings, kind):
        """Inserted, changed and deleted while rows are copied, before and behind the place of the copy."""
        rows = list(WeatherStationReading.objects.order_by("pk"))
        done = []

        def somebody_writes(_):
            with psycopg.connect(database_url()) as other:
                number = len(done)
                for sql, row in (
                    ("DELETE FROM fleet_weatherstationreading WHERE id = %s", rows[number]),
                    ("DELETE FROM fleet_weatherstationreading WHERE id = %s", rows[-2 - number]),
                    (
                        "UPDATE fleet_weatherstationreading SET temperature = -77 WHERE id = %s",
                        rows[20 + number],
                    ),
                    ("UPDATE fleet_weatherstationreading SET temperature = -78 WHERE id = %s", rows[50]),
                ):
                    other.execute(sql, [row.pk])
                other.execute(
                    "INSERT INTO fleet_weatherstationreading (device_id, timestamp, received_at, temperature)"
                    " VALUES (%s, now(), now(), -99)",
                    [months_of_readings.pk],
                )
            done.append(number)

        partitions.convert(partitions.plan(kind, "week"), Pace(rows=20, report=somebody_writes))

        found = list(WeatherStationReading.objects.all())
        assert len(done) > 3
        assert len([r for r in found if r.temperature == -99]) == len(done)
        assert len([r for r in found if r.temperature == -77]) == len(done)
        assert len([r for r in found if r.temperature == -78]) == 1
        gone = {rows[n].pk for n in done} | {rows[-2 - n].pk for n in done}
        assert {r.pk for r in found if r.temperature != -99} == {r.pk for r in rows} - gone

    def test_a_conversion_that_was_stopped_leaves_the_table_as_it_was(self, months_of_readings, kind):
        before = table_of_readings(), list(WeatherStationReading.objects.values_list())
        pace = Pace(rows=20)
        pace.report = lambda _: pace.stop.set()

        with pytest.raises(Stopped):
            partitions.convert(partitions.plan(kind, "month"), pace)

        assert (table_of_readings(), list(WeatherStationReading.objects.values_list())) == before
        assert not sql("SELECT 1 FROM pg_trigger WHERE tgname LIKE 'mirror%'")
        self.convert()
        assert WeatherStationReading.objects.count() == 101

    def test_ingest_copies_into_it(self, months_of_readings):
        self.convert()
        pipeline(
            [Message("things/weatherstation/STATION-001/data", b'{"temperature": 7.5}', timezone.now())],
            acknowledge=lambda: None,
        )

        assert WeatherStationReading.objects.filter(temperature=7.5, device=months_of_readings).count() == 1

    def test_pruning_drops_whole_partitions_and_makes_new_ones(self, months_of_readings):
        self.convert()
        names = {p.name for p in partitions.partitions_of("fleet_weatherstationreading")}
        newest = max(p.end for p in partitions.partitions_of("fleet_weatherstationreading")[:-1])
        sql(f"DROP TABLE fleet_weatherstationreading_{newest - timedelta(days=20):%Y_%m}_01")

        report = prune("--older-than", "40d")

        left = partitions.partitions_of("fleet_weatherstationreading")
        assert report["readings"]["partitions"] >= 2
        assert len(names - {p.name for p in left}) == report["readings"]["partitions"]
        assert max(p.end for p in left[:-1]) == newest
        assert (
            WeatherStationReading.objects.filter(timestamp__lt=timezone.now() - timedelta(days=41)).count()
            == 0
        )
        assert sum(count for *_, count in figures(DAYS).values()) == 101

    def test_rows_that_wait_in_the_rest_move_into_their_partition(self, months_of_readings, kind):
        self.convert("--by", "week")
        last = partitions.partitions_of("fleet_weatherstationreading")[-2]
        sql(f"DROP TABLE {last.name}")
        measure(months_of_readings, (last.start + HOUR, 55.0))

        assert partitions.extend(kind) == 1

        assert sql(f"SELECT temperature FROM {last.name}") == [(55.0,)]
        assert WeatherStationReading.objects.count() == 102

    def test_a_later_migration_adds_a_column(self, months_of_readings):
        self.convert()
        field = models.FloatField(null=True)
        field.set_attributes_from_name("pressure")
        with connection.schema_editor() as editor:
            editor.add_field(WeatherStationReading, field)
            editor.add_index(
                WeatherStationReading, models.Index(fields=["temperature"], name="of_a_later_migration")
            )

        sql("UPDATE fleet_weatherstationreading SET pressure = 1")
        assert sql("SELECT count(*) FROM fleet_weatherstationreading WHERE pressure = 1") == [(101,)]

    def test_what_would_be_lost_is_refused(self, months_of_readings):
        sql("CREATE VIEW warm AS SELECT * FROM fleet_weatherstationreading WHERE temperature > 20; SELECT 1")

        with pytest.raises(CommandError, match="has views, which would be lost: warm"):
            self.convert()

    def test_it_is_done_once(self, months_of_readings):
        self.convert()

        with pytest.raises(CommandError, match="is partitioned already"):
            self.convert()

    def test_without_yes_and_without_a_terminal_nothing_is_done(self, months_of_readings):
        out = StringIO()
        call_command("partition_readings", "weatherstation", "--dry-run", stdout=out)
        assert "partitions by month" in out.getvalue()

        with pytest.raises(CommandError, match="--yes does it without asking"):
            call_command("partition_readings", "weatherstation")

        assert not partitions.partitions_of("fleet_weatherstationreading")


def fill(device, number=30):
    """Everything that is stored of a device, in every table."""
    key, now = f"weatherstation/{device.device_id}", timezone.now()
    measure(device, *[(DAY + n * HOUR, float(n)) for n in range(number)])
    WeatherStationMessage.objects.bulk_create(
        WeatherStationMessage(device=device, topic=f"{n}") for n in range(number)
    )
    roll_up()
    QuarantinedMessage.objects.create(reason="x", topic="t", payload=b"", device_key=key, received_at=now)
    DeviceCommand.objects.create(device_key=key, name="reboot")
    DeviceCommand.objects.create(device_key=key, name="reboot", state="answered", answered_at=now)
    Grant.objects.create(subject=f"key:{key}", actions="publish", filter="plant/x")
    for principal, client in ((key, "a"), ("", "b")):
        Denial.objects.create(
            dialect="emqx",
            username=device.mqtt_username,
            client_id=client,
            principal=principal,
            action="publish",
            topic="t",
            reason="no_grant",
            first_at=now,
            last_at=now,
        )


def remains(device):
    """How many rows each table still has of a device."""
    key = f"weatherstation/{device.device_id}"
    return {
        "device": WeatherStationDevice.objects.filter(device_id=device.device_id).count(),
        "readings": WeatherStationReading.objects.filter(device_id=device.pk).count(),
        "messages": WeatherStationMessage.objects.filter(device_id=device.pk).count(),
        "rollups": Rollup.objects.filter(device_key=key).count(),
        "quarantine": QuarantinedMessage.objects.filter(device_key=key).count(),
        "commands": DeviceCommand.objects.filter(device_key=key).count(),
        "grants": Grant.objects.filter(subject=f"key:{key}").count(),
        "denials": Denial.objects.filter(username=device.mqtt_username).count(),
    }


def topics_to_clear():
    return sorted(RetainedTopic.objects.values_list("topic", flat=True))


TOPICS = [f"things/weatherstation/STATION-001/{about}" for about in ("cmd", "data", "reply", "status")]


class TestErasing:
    def erase(self, *arguments):
        out = StringIO()
        call_command("erase_device", "weatherstation", "STATION-001", *arguments, stdout=out)
        return out.getvalue()

    def test_nothing_is_left_of_the_device_and_all_of_its_neighbour(self, station, neighbour):
        fill(station)
        fill(neighbour)
        kept = remains(neighbour)

        counts = json.loads(self.erase("--yes", "--json", "--batch", "7"))

        assert set(remains(station).values()) == {0}
        assert remains(neighbour) == kept
        assert counts == {
            "device": 1,
            "readings": 30,
            "messages": 30,
            "rollups": 32,
            "quarantine": 1,
            "commands": 2,
            "grants": 1,
            "denials": 2,
            "admin_log": 0,
            "retained": 4,
        }
        assert topics_to_clear() == TOPICS

    def test_a_dry_run_counts_the_same_and_changes_nothing(self, station):
        fill(station)
        before = remains(station)

        counts = json.loads(self.erase("--dry-run", "--json"))

        assert {name: counts[name] for name in before} == before == remains(station)
        assert topics_to_clear() == []
        assert "30 readings" in self.erase("--dry-run")

    def test_one_that_goes_on_sending_does_not_keep_it_from_ending(self, station, kind):
        """A connection that is open stays: each message of a disabled device is a row, and one in the quarantine."""
        fill(station)
        batches = []

        def send(rows):
            batches.append(rows)
            if len(batches) == 100:
                pace.stop.set()
            pipeline(
                [Message("things/weatherstation/STATION-001/data", b'{"temperature": 1}', timezone.now())]
            )

        pace = Pace(rows=7, report=send)
        removal.erase(kind, "STATION-001", pace)

        assert remains(station) == dict.fromkeys(remains(station), 0) | {
            "quarantine": QuarantinedMessage.objects.count()
        }

    def test_what_a_deleted_device_left_behind_is_erased_too(self, station):
        fill(station)
        station.delete()
        assert remains(station)["quarantine"] == 1

        self.erase("--yes")

        assert {name: n for name, n in remains(station).items() if n} == {"denials": 1}  # of no known key
        with pytest.raises(CommandError, match="There is no weatherstation/STATION-001, and nothing is left"):
            self.erase("--yes")

    def test_denials_go_that_know_only_the_derived_username_or_the_client_id(self, kind, neighbour):
        """Also of a device that was deleted; those of the neighbour that names it stay."""
        station, _ = provisioning.create(kind, "STATION-001")
        username = station.mqtt_username
        station.delete()
        for name, client in (
            (username, "x"),
            ("", username),
            ("", "STATION-001"),
            ("neighbour", "STATION-001"),
        ):
            Denial.objects.create(
                dialect="emqx",
                username=name,
                client_id=client,
                action="connect",
                reason="unknown_user",
                first_at=DAY,
                last_at=DAY,
            )
        assert json.loads(self.erase("--dry-run", "--json"))["denials"] == 3

        assert json.loads(self.erase("--yes", "--json"))["denials"] == 3

        assert Denial.objects.get().username == "neighbour"

    def test_messages_on_unknown_topics_below_its_own_go(self, station):
        others = ["things/weatherstation/STATION-0011/gps", "things/weatherstation/station-001/gps"]
        own = ["things/weatherstation/STATION-001/gps/raw", "things/weatherstation/STATION-001"]
        pipeline([Message(topic, b"52.1", timezone.now()) for topic in own + others])
        assert json.loads(self.erase("--dry-run", "--json"))["quarantine"] == 2

        assert json.loads(self.erase("--yes", "--json", "--batch", "1"))["quarantine"] == 2

        assert sorted(QuarantinedMessage.objects.values_list("topic", flat=True)) == others

    def test_what_the_admin_wrote_down_of_it_goes(self, station, neighbour):
        """Its lines hold the name that the device had."""
        operator = User.objects.create_superuser("operator")
        for device in (station, neighbour):
            LogEntry.objects.log_actions(operator.pk, [device], CHANGE, single_object=True)
        assert json.loads(self.erase("--dry-run", "--json"))["admin_log"] == 1

        assert "1 admin log" in self.erase("--yes")

        assert LogEntry.objects.get().object_id == str(neighbour.pk)

    def test_lines_of_the_admin_stay_that_name_another_by_other_letters(self, station):
        """Usernames and ids are told apart by case, and a project may have denials of its own."""
        operator = User.objects.create_superuser("operator")
        username = WeatherStationDevice.objects.get(device_id="STATION-001").mqtt_username
        denied = {"topic": "t", "dialect": "emqx", "action": "publish", "reason": "no_grant"}
        for name in (username, username.swapcase()):
            Denial.objects.create(username=name, first_at=DAY, last_at=DAY, **denied)
        LogEntry.objects.log_actions(operator.pk, list(Denial.objects.all()), CHANGE)

        self.erase("--yes")

        assert LogEntry.objects.get().object_repr.startswith(f"{username.swapcase()} ")

    @pytest.mark.parametrize("is_deleted", [False, True])
    def test_lines_of_the_admin_go_that_name_it(self, station, neighbour, is_deleted):
        """Of its grants, commands, messages and denials; also of those that were deleted."""
        operator = User.objects.create_superuser("operator")
        other = WeatherStationDevice.objects.create(device_id="STATION-001:a", mqtt_username="station-2")
        for device in (station, neighbour, other):
            fill(device, 1)
            topic = f"things/weatherstation/{device.device_id}/data"
            written = WeatherStationMessage.objects.create(device=device, topic=topic)
            rows = [*Grant.objects.all(), *DeviceCommand.objects.all(), *Denial.objects.all(), written]
            for row in rows:
                LogEntry.objects.log_actions(operator.pk, [row], CHANGE, single_object=True)
            Grant.objects.all().delete()
            DeviceCommand.objects.all().delete()
            Denial.objects.all().delete()
        Denial.objects.create(
            username="neighbour", topic=topics.build(registry.get("weatherstation"), "STATION-001", "data"),
            dialect="emqx", action="publish", reason="no_grant", first_at=DAY, last_at=DAY,
        )  # fmt: skip
        LogEntry.objects.log_actions(operator.pk, list(Denial.objects.all()), CHANGE, single_object=True)
        if is_deleted:
            station.delete()

        self.erase("--yes")

        left = list(LogEntry.objects.values_list("object_repr", flat=True))
        assert [text for text in left if "STATION-001" in text.replace("STATION-001:a", "")] == [
            "neighbour publish things/weatherstation/STATION-001/data: no_grant"
        ]
        assert left.count("station publish t: no_grant") == 2 * is_deleted  # whose name is known no more
        assert len(left) == 2 * 6 + 1 + 2 * is_deleted

    def test_without_yes_and_without_a_terminal_nothing_is_done(self, station):
        with pytest.raises(CommandError, match="--yes does it without asking"):
            self.erase()

        assert remains(station)["device"] == 1

    @pytest.mark.django_db(transaction=True)
    def test_killed_in_the_middle_it_is_disabled_and_goes_on_the_next_time(self, tmp_path):
        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        fill(station, 400)
        command = [sys.executable, "manage.py", "erase_device", "weatherstation", "STATION-001", "--yes"]
        process = subprocess.Popen(
            [*command, "--batch", "1"], cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
        )
        assert eventually(lambda: 0 < remains(station)["readings"] < 400, 30)
        process.kill()
        process.wait()

        assert remains(station)["device"] == 1
        assert WeatherStationDevice.objects.get().is_active is False
        self.erase("--yes")
        assert set(remains(station).values()) == {0}

    @pytest.mark.django_db(transaction=True)
    def test_sigterm_ends_it_after_the_batch_at_hand(self, tmp_path):
        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        fill(station, 400)
        command = [sys.executable, "manage.py", "erase_device", "weatherstation", "STATION-001", "--yes"]
        process = subprocess.Popen(
            [*command, "--batch", "1"], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
        )
        assert eventually(lambda: 0 < remains(station)["readings"] < 400, 30)
        process.send_signal(signal.SIGTERM)

        _, said = process.communicate(timeout=10)
        assert process.returncode == 1
        assert "weatherstation/STATION-001 is disabled and not gone yet; run it again" in said
        assert 0 < remains(station)["readings"] < 400


class TestDeviceThatEnds:
    def test_a_deleted_device_leaves_nothing_to_inherit(self, station, neighbour):
        fill(station)
        fill(neighbour)
        kept = remains(neighbour)

        station_as_it_was = WeatherStationDevice(
            pk=station.pk, device_id="STATION-001", mqtt_username="station"
        )
        station.delete()

        left = {name: n for name, n in remains(station_as_it_was).items() if n}
        assert left == {"quarantine": 1, "commands": 1, "denials": 2}  # history
        assert remains(neighbour) == kept
        assert topics_to_clear() == TOPICS

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("way", ["model", "query set"])
    def test_many_rows_go_in_batches_and_the_device_last(self, way, monkeypatch):
        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        fill(station)
        monkeypatch.setattr(Pace, "rows", 10)
        monkeypatch.setattr("devicehub.removal.Pace", lambda: Pace(rows=10))
        with CaptureQueriesContext(connection) as captured:
            station.delete() if way == "model" else WeatherStationDevice.objects.all().delete()

        statements = [q["sql"] for q in captured if q["sql"].startswith(("DELETE", "UPDATE"))]
        rows = [sql for sql in statements if '"timestamp" >= ' in sql]
        assert len(rows) == 3
        assert "is_active" in statements[0]
        assert not WeatherStationDevice.objects.exists()
        assert not [q["sql"] for q in captured if 'temperature"' in q["sql"]]  # no row was loaded

    @pytest.mark.parametrize(
        "end",
        [
            lambda device: setattr(device, "is_active", False) or device.save(),
            lambda device: setattr(device, "is_active", False) or device.save(update_fields=["is_active"]),
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).update(is_active=False),
            lambda device: (
                setattr(device, "is_active", False)
                or WeatherStationDevice.objects.bulk_update([device], ["is_active"])
            ),
            lambda device: device.delete(),
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).delete(),
        ],
        ids=["save", "save a field", "update", "bulk update", "delete", "delete query set"],
    )
    def test_every_way_to_end_one_has_the_broker_forget_it(self, station, neighbour, end):
        end(station)

        assert topics_to_clear() == TOPICS

    @pytest.mark.parametrize(
        "change",
        [
            lambda device: device.save(),
            lambda device: setattr(device, "is_active", False) or device.save(update_fields=["name"]),
            lambda device: WeatherStationDevice.objects.update(name="x", is_active=True),
            lambda device: WeatherStationDevice.objects.filter(pk=0).update(is_active=False),
            lambda device: WeatherStationDevice.objects.create(device_id="STATION-009", is_active=False),
        ],
        ids=["save", "save another field", "update", "update nobody", "create"],
    )
    def test_what_ends_no_device_clears_nothing(self, station, change):
        change(station)

        assert topics_to_clear() == []

    def test_a_disabled_device_is_told_once(self, station):
        station.is_active = False
        station.save()
        RetainedTopic.objects.all().delete()

        station.save()

        assert topics_to_clear() == []

    def test_it_is_written_in_the_same_transaction(self, station):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            station.is_active = False
            station.save()
            assert topics_to_clear() == TOPICS
            1 / 0  # noqa: B018

        assert topics_to_clear() == []


@pytest.fixture
def veto():
    """A project's receiver that lets no device go but those named: `veto("STATION-002")`."""
    allowed = []

    def refuse(sender, instance, **_):
        if instance.device_id not in allowed:
            raise models.ProtectedError("it is under warranty", {instance})

    models.signals.pre_delete.connect(refuse, sender=WeatherStationDevice)
    yield allowed.extend
    models.signals.pre_delete.disconnect(refuse, sender=WeatherStationDevice)


@pytest.fixture
def repair(transactional_db):
    """A project's model that refers to devices, which it keeps, and to readings, with which it goes."""
    with isolate_apps("fleet"), ExitStack() as stack:

        class Repair(models.Model):
            device = models.ForeignKey(WeatherStationDevice, models.PROTECT, null=True)
            reading = models.ForeignKey(WeatherStationReading, models.CASCADE, null=True)

            class Meta:
                app_label = "fleet"

        with connection.schema_editor() as editor:
            editor.create_model(Repair)
        relations = removal.get_candidate_relations_to_delete
        found = {
            field.remote_field.model._meta: field.remote_field
            for field in Repair._meta.fields
            if field.is_relation
        }

        def with_ours(options):
            return [*relations(options), *([found[options]] if options in found else [])]

        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("devicehub.removal.get_candidate_relations_to_delete", with_ours)
        patch.setattr("django.db.models.deletion.get_candidate_relations_to_delete", with_ours)
        yield Repair
        with connection.schema_editor() as editor:
            editor.delete_model(Repair)


@pytest.mark.django_db(transaction=True)
class TestOutsideTransactions:
    """Where a deletion goes in portions, and so in several transactions."""

    def test_a_query_set_that_filters_by_what_deleting_changes_deletes_all_it_found(self, station, neighbour):
        fill(station)
        fill(neighbour)
        WeatherStationDevice.objects.filter(pk=neighbour.pk).update(is_active=False)

        count, by_model = WeatherStationDevice.objects.filter(is_active=True).delete()

        assert (count, by_model["fleet.WeatherStationDevice"]) == (1, 1)
        assert remains(station)["device"] == remains(station)["readings"] == 0
        assert remains(neighbour)["readings"] == 30

    def test_a_sliced_query_set_is_refused_as_by_django(self, station):
        with pytest.raises(TypeError, match="Cannot use 'limit' or 'offset' with delete"):
            WeatherStationDevice.objects.all()[:1].delete()

        assert WeatherStationDevice.objects.get().is_active

    @pytest.mark.parametrize(
        "delete",
        [
            lambda device: device.delete(),
            lambda device: WeatherStationDevice.objects.order_by("-device_id").delete(),
            lambda device: removal.request(device),
            lambda device: removal.erase(registry.of(device), device.device_id, Pace()),
        ],
        ids=["model", "query set", "request", "erase"],
    )
    def test_a_receiver_that_refuses_is_heard_before_anything_goes(self, station, neighbour, veto, delete):
        """Also where it refuses one of many."""
        veto(["STATION-002"])
        fill(station)
        before = remains(station)

        with pytest.raises(models.ProtectedError):
            delete(station)

        assert remains(station) == before
        assert {device.is_active for device in WeatherStationDevice.objects.all()} == {True}
        assert topics_to_clear() == []

    def test_a_foreign_key_that_keeps_a_device_keeps_its_rows(self, station, repair):
        fill(station)
        kept = repair.objects.create(device=station)
        before = remains(station)

        with pytest.raises(models.ProtectedError):
            station.delete()
        with pytest.raises(CommandError, match=r"^weatherstation/STATION-001 cannot be deleted: [^\n]+$"):
            call_command("erase_device", "weatherstation", "STATION-001", "--yes", stdout=StringIO())

        assert remains(station) == before
        kept.delete()
        WeatherStationDevice.objects.get().delete()
        assert not WeatherStationReading.objects.exists()

    def test_rows_that_a_project_refers_to_go_as_django_does_it(self, station, repair):
        fill(station)
        repair.objects.create(reading=WeatherStationReading.objects.latest("timestamp"))

        done = removal.erase(registry.of(station), "STATION-001", Pace(rows=7))

        assert (done.device, done.readings, done.messages) == (1, 30, 30)
        assert not repair.objects.exists()

    def test_one_that_cannot_be_removed_does_not_keep_the_others(self, station, neighbour, veto, monkeypatch):
        """And is told of once."""
        veto(["STATION-001", "STATION-002"])
        removal.request(station)
        removal.request(neighbour)
        fill(station)

        def refuse(sender, instance, **_):
            if instance.device_id == "STATION-001":
                raise RuntimeError("not today")

        models.signals.pre_delete.connect(refuse, sender=WeatherStationDevice)
        monkeypatch.setattr(removal, "_refused", set())
        try:
            with capture_logs() as logged:
                assert [removal.work_off() for _ in range(3)] == [1, 0, 0]
        finally:
            models.signals.pre_delete.disconnect(refuse, sender=WeatherStationDevice)

        assert [line["event"] for line in logged] == ["removal.refused"]
        assert [r.device_key for r in RemovalRequest.objects.all()] == ["weatherstation/STATION-001"]
        assert remains(station)["readings"] == 30
        assert removal.work_off() == 1

    def test_one_that_is_enabled_while_it_goes_keeps_what_it_has_left(self, station):
        fill(station)
        removal.request(station)

        def enable(_):
            WeatherStationDevice.objects.update(is_active=True)

        assert removal.work_off(Pace(rows=7, report=enable)) == 0

        assert remains(station)["device"] == 1
        assert remains(station)["readings"] == 23
        assert not RemovalRequest.objects.exists()

    def test_one_that_is_enabled_after_its_last_row_is_not_deleted(self, station, monkeypatch):
        removal.request(station)

        def drain(*_):
            WeatherStationDevice.objects.update(is_active=True)

        monkeypatch.setattr("devicehub.removal._drain_rows", drain)
        assert removal.work_off() == 0

        assert remains(station)["device"] == 1

    @pytest.mark.postgresql_only
    def test_one_that_somebody_is_about_to_enable_is_waited_for(self, station, monkeypatch):
        removal.request(station)
        table = WeatherStationDevice._meta.db_table
        with psycopg.connect(database_url()) as other, ThreadPoolExecutor(1) as pool:
            other.execute(f"UPDATE {table} SET is_active = true")

            def work_off():
                try:
                    return removal.work_off()
                finally:
                    connections.close_all()

            removing = pool.submit(work_off)
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            assert eventually(lambda: sql(waiting)[0][0] > 0, 10)
            other.commit()
            assert removing.result(10) == 0

        assert remains(station)["device"] == 1

    @pytest.mark.postgresql_only  # SQLite has one writer
    @pytest.mark.parametrize("way", ["model", "query set"])
    def test_a_message_that_comes_while_the_device_goes_is_no_obstacle(self, station, way):
        """It is stored behind the rows that went already, and before the device: the foreign key would refuse."""
        stored = []

        def store(message):
            try:
                return pipeline([message])
            finally:
                connections.close_all()

        def ingest(execute, statement, *rest):
            if statement.startswith('DELETE FROM "fleet_weatherstationdevice"') and not stored:
                body = b'{"temperature": 1}'
                message = Message("things/weatherstation/STATION-001/data", body, timezone.now())
                stored.append(pool.submit(store, message))
                wait(stored, 1)
            return execute(statement, *rest)

        with ThreadPoolExecutor(1) as pool, connection.execute_wrapper(ingest):
            station.delete() if way == "model" else WeatherStationDevice.objects.all().delete()
            assert stored[0].result(10) == ["failed"]

        assert set(remains(station).values()) == {0, 1}  # what did not arrive in time is in the quarantine
        assert QuarantinedMessage.objects.get().reason == "unknown_device"

    def test_a_request_does_not_reach_a_next_device_of_the_same_id(self, station):
        removal.request(station)
        WeatherStationDevice.objects.get().delete()
        WeatherStationDevice.objects.create(device_id="STATION-001", is_active=False)

        assert removal.work_off() == 0

        assert WeatherStationDevice.objects.count() == 1

    def test_an_instance_from_before_it_was_enabled_is_disabled_as_well(self, station, monkeypatch):
        station.is_active = False
        drained = []
        monkeypatch.setattr(
            "devicehub.removal._drain_rows",
            lambda *_: drained.append(WeatherStationDevice.objects.get().is_active),
        )

        station.delete()

        assert drained == [False]
        assert topics_to_clear() == TOPICS

    def test_deleting_what_is_gone_takes_nothing_from_a_next_device_of_the_same_id(self, station):
        gone = WeatherStationDevice.objects.get()
        station.delete()
        following = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="next")
        fill(following)
        before = remains(following)

        gone.delete()

        assert remains(following) == before


class TestAdmin:
    @pytest.fixture
    def operator(self, client, db):
        client.force_login(User.objects.create_superuser("operator"))
        return client

    @pytest.fixture
    def confirm(self, operator):
        """Delete a device as an operator does, in one of the two ways; the pages seen."""

        def delete(way, device):
            base = "/admin/fleet/weatherstationdevice/"
            if way == "page":
                url, data = f"{base}{device.pk}/delete/", {}
                asked = operator.get(url)
            else:
                url, data = base, {"action": "delete_selected", "_selected_action": [device.pk]}
                asked = operator.post(url, data)
            assert asked.status_code == 200
            done = operator.post(url, {**data, "post": "yes"}, follow=True)
            assert done.status_code == 200
            return asked.content.decode(), done.content.decode()

        return delete

    @pytest.mark.parametrize("way", ["page", "action"])
    def test_a_device_with_few_rows_is_gone_at_once(self, station, neighbour, confirm, way):
        fill(station)

        asked, _ = confirm(way, station)

        assert "30 readings" in asked
        assert remains(station)["device"] == remains(station)["readings"] == 0
        assert remains(neighbour)["device"] == 1

    @pytest.mark.parametrize("way", ["page", "action"])
    def test_one_with_many_is_disabled_and_goes_in_the_background(self, station, confirm, way, monkeypatch):
        monkeypatch.setattr(removal, "FEW", 5)
        fill(station)

        _, done = confirm(way, station)

        assert "is disabled and being removed" in done
        assert remains(station)["readings"] == 30
        assert WeatherStationDevice.objects.get().is_active is False
        assert removal.work_off() == 1
        assert remains(station)["device"] == remains(station)["readings"] == 0
        assert removal.work_off() == 0

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("way", ["page", "action"])
    def test_the_page_that_asks_names_what_keeps_a_device(self, station, repair, operator, way):
        fill(station)
        repair.objects.create(device=station)
        base = "/admin/fleet/weatherstationdevice/"
        action = {"action": "delete_selected", "_selected_action": [station.pk]}
        url, data = (f"{base}{station.pk}/delete/", {}) if way == "page" else (base, action)

        page = operator.post(url, {**data, "post": "yes"}, follow=True).content.decode()

        assert "Repair object" in page
        assert remains(station)["readings"] == 30

    def test_a_device_that_was_enabled_again_is_not_removed(self, station):
        removal.request(station)
        station.is_active = True
        station.save()

        assert removal.work_off() == 0
        assert not RemovalRequest.objects.exists()
        assert remains(station)["device"] == 1


class TestGrants:
    """The account of ingest may write in the name of devices only where somebody said so."""

    @pytest.fixture
    def grant(self, db):
        def create(*options):
            call_command("create_account", "ingest", "--ingest", *options, stdout=StringIO())
            rows = Grant.objects.filter(subject="key:account/ingest", actions="publish")
            return {row.filter for row in rows if "weatherstation" in row.filter}

        return create

    def test_without_the_option_it_may_publish_commands_only(self, grant):
        assert grant() == {"things/weatherstation/+/cmd"}

    def test_with_it_it_may_clear_all_four(self, grant):
        assert grant("--clear-retained") == {
            f"things/weatherstation/+/{about}" for about in ("cmd", "data", "reply", "status")
        }

    def test_an_account_that_exists_gets_them_too(self, grant):
        grant()

        assert len(grant("--clear-retained", "--grant-only")) == 4

    def test_it_needs_an_ingest_account(self, db):
        with pytest.raises(CommandError, match="--clear-retained needs --ingest"):
            call_command("create_account", "backend", "--clear-retained")


@pytest.fixture
def broker(tmp_path, needs_real, settings):
    """The port of a mosquitto that refuses to let anybody write replies; MQTT_URL leads there."""
    rules = tmp_path / "rules"
    rules.write_text(
        "topic readwrite things/+/+/data\ntopic readwrite things/+/+/status\ntopic readwrite things/+/+/cmd\n"
    )
    rules.chmod(0o600)
    with ExitStack() as stack:
        try:
            port = stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", f"acl_file {rules}\n"))
        except servers.MissingServer as missing:
            needs_real(missing)
        settings.MQTT_URL = f"mqtt://127.0.0.1:{port}"
        yield port


def retained_at(port):
    """What the broker retains below things/, as {topic: payload}."""
    found = {}
    reader = Connection(
        BrokerAddress("127.0.0.1", port), f"reader-{random.random()}", on_message=found.__setitem__
    )
    reader.subscribe("things/#")
    reader.subscribe("nothing/#")  # the answer comes after what is retained
    reader.close()
    return found


class TestRetained:
    @pytest.mark.parametrize("ended", ["disabled", "deleted"])
    def test_what_clears_a_topic_is_no_message_of_the_device(self, station, ended):
        """Whoever is subscribed gets the empty message too, and so does ingest."""
        if ended == "disabled":
            WeatherStationDevice.objects.update(is_active=False)
        else:
            station.delete()

        outcomes = pipeline([Message(topic, b"", timezone.now()) for topic in TOPICS])

        assert outcomes == ["retained"] * 4
        assert not QuarantinedMessage.objects.exists()
        assert not WeatherStationMessage.objects.exists()

    def test_an_empty_message_of_an_active_device_is_still_told(self, station):
        assert pipeline([Message(TOPICS[1], b"", timezone.now())]) == ["failed"]
        assert QuarantinedMessage.objects.count() == 1

    def test_what_clears_the_topics_of_a_device_made_again_says_nothing_of_it(self, station, broker):
        """Ingest hears it, and the new device was never there."""
        station.delete()
        again = WeatherStationDevice.objects.create(device_id="STATION-001")
        listener = Listener(BrokerAddress("127.0.0.1", broker), "ingest-1", ["things/#"])
        listener.start()
        try:
            assert retained.clear() == 3
            heard = eventually(lambda: len(listener._queue) == 3 and listener.take(9, 0))
            outcomes = pipeline([_message(delivery) for delivery in heard])
        finally:
            listener.stop()

        assert outcomes == ["retained"] * 3
        again.refresh_from_db()
        assert (again.status, again.last_message_at) == ("offline", None)

    def test_an_empty_message_is_no_sign_of_life(self, station):
        """With MQTT 3.1.1 ours cannot be told from those of others."""
        pipeline([Message(TOPICS[1], b"", timezone.now())])

        station.refresh_from_db()
        assert (station.connected, station.last_seen) == (False, None)

    def publish(self, port, *topics):
        device = Connection(BrokerAddress("127.0.0.1", port), "device")
        for topic in topics:
            device.publish(Outgoing(topic, b"{}", retain=True))
        device.close()

    def test_the_broker_forgets_what_it_retains_of_a_disabled_device(self, station, neighbour, broker):
        theirs = "things/weatherstation/STATION-002/data"
        self.publish(broker, *(t for t in TOPICS if "reply" not in t), theirs)
        assert len(retained_at(broker)) == 4
        station.is_active = False
        station.save()

        assert retained.clear() == 3

        assert set(retained_at(broker)) == {theirs}

    def test_what_the_broker_refuses_stays_with_its_error_and_comes_again_later(self, station, broker):
        station.delete()
        begin = timezone.now()

        assert retained.clear() == 3

        (left,) = RetainedTopic.objects.all()
        assert left.topic.endswith("/reply")
        assert "Not authorized" in left.error
        for minutes in (1, 2, 4):
            wait = left.next_at - begin
            assert timedelta(minutes=minutes) <= wait < timedelta(minutes=minutes + 1)
            assert retained.clear() == 0
            RetainedTopic.objects.update(next_at=begin)
            retained.clear()
            left.refresh_from_db()

    @pytest.fixture
    def refused(self, broker):
        """Let the broker refuse every topic that is due, so many times; what is logged as given up."""

        def ask(times):
            with capture_logs() as logged:
                for _ in range(times):
                    RetainedTopic.objects.update(next_at=timezone.now())
                    retained.clear()
            return [line["topic"] for line in logged if line["event"] == "retained.given_up"]

        return ask

    def test_what_the_broker_always_refuses_is_given_up_with_a_line_in_the_log(self, station, refused):
        station.delete()

        assert refused(4) == []
        assert refused(1) == ["things/weatherstation/STATION-001/reply"]
        assert topics_to_clear() == []

    def test_that_a_broker_was_away_does_not_count_as_refused(self, station, refused):
        station.delete()
        RetainedTopic.objects.update(attempts=30, error="no connection to it")

        assert refused(4) == []
        assert RetainedTopic.objects.get().attempts == 4

    def test_a_new_request_begins_to_count_again(self, station, refused):
        station.delete()
        refused(4)
        WeatherStationDevice.objects.create(device_id="STATION-001").delete()

        row = RetainedTopic.objects.get(topic__endswith="reply")
        assert (row.attempts, row.error) == (0, "")
        assert refused(4) == []

    def test_a_broker_that_is_away_is_asked_again(self, station, settings):
        settings.MQTT_URL = f"mqtt://127.0.0.1:{servers.free_port()}"
        station.delete()

        assert retained.clear() == 0

        assert {row.attempts for row in RetainedTopic.objects.all()} == {1}
        assert all("no connection to" in row.error for row in RetainedTopic.objects.all())

    def test_a_device_that_is_enabled_again_keeps_what_is_retained(self, station, broker):
        self.publish(broker, TOPICS[1])
        station.is_active = False
        station.save()
        station.is_active = True
        station.save()

        assert retained.clear() == 0

        assert topics_to_clear() == []
        assert set(retained_at(broker)) == {TOPICS[1]}

    def test_another_device_of_the_same_id_does_not(self, station, broker):
        self.publish(broker, TOPICS[0])
        station.delete()
        WeatherStationDevice.objects.create(device_id="STATION-001")

        assert retained.clear() == 3

        assert retained_at(broker) == {}


class TestChart:
    """Long ranges come from the rollups, and nothing is missing that is not rolled up yet."""

    @pytest.fixture
    def load(self, kind):
        plotted = parse({"reading": "weatherstation.temperature"}).plotted

        def load(seconds=7 * 86_400):
            chart = Chart(plotted, seconds)
            return chart, chart.load(timezone.now())

        return load

    @pytest.mark.parametrize(
        ("seconds", "step"), [(604_800, 3_600), (2_592_000, 3_600), (31_536_000, 86_400)]
    )
    def test_a_long_range_has_lowest_mean_and_highest_of_hours_or_days(self, station, load, seconds, step):
        hour = (timezone.now() - timedelta(days=2)).replace(hour=5, minute=0, second=0, microsecond=0)
        measure(station, (hour, 1.0), (hour + HOUR / 2, 3.0))
        roll_up()

        _, loaded = load(seconds)

        assert loaded["step"] == step
        start = hour.timestamp() // step * step
        assert loaded["series"] == [
            {"device": "STATION-001", "t": [start + step / 2], "v": [2.0], "low": [1.0], "high": [3.0]}
        ]

    @pytest.mark.parametrize("rolled_up", [0, 1, 2, 3, 4])
    def test_rows_that_are_not_rolled_up_yet_count(self, station, load, rolled_up):
        hour = (timezone.now() - timedelta(days=2)).replace(minute=0, second=0, microsecond=0)
        measure(station, (hour, 1.0), (hour, 3.0), (hour + HOUR, 9.0), (hour + HOUR / 2, 8.0))
        if rolled_up:
            rollups.roll_up(limit=rolled_up)

        (series,) = load()[1]["series"]

        assert (series["low"], series["v"], series["high"]) == ([1.0, 9.0], [4.0, 9.0], [8.0, 9.0])

    def test_it_shows_what_was_pruned(self, station, load):
        old = timezone.now() - timedelta(days=5)
        measure(station, (old, 4.0))
        prune("--older-than", "2d")

        assert load()[1]["series"][0]["v"] == [4.0]

    def test_news_change_their_bucket(self, station, load, kind):
        measure(station, (timezone.now(), 4.0))
        roll_up()
        chart, _ = load()
        tail = Tail(kind)
        measure(station, (timezone.now(), 6.0))

        (news,) = chart.add(tail.look(None, "temperature"), timezone.now())

        assert (news["v"][-1], news["high"][-1]) in ((5.0, 6.0), (6.0, 6.0))  # another hour may have begun

    def test_no_row_is_read_for_what_is_rolled_up(self, station, load, kind):
        """The look for rows that are not taken in yet goes along their ids."""
        measure(station, *[(timezone.now() - n * HOUR, 1.0) for n in range(300)])
        roll_up()
        with CaptureQueriesContext(connection) as captured:
            load()

        readings = [
            q["sql"] for q in captured if "weatherstationreading" in q["sql"] and "LIMIT" not in q["sql"]
        ]
        (statement,) = [sql for sql in readings if "GROUP BY" in sql]
        assert "WHERE id > " in statement
        if connection.vendor == "sqlite":  # PostgreSQL goes by what it knows of the table
            plan = " ".join(row[-1] for row in rollup_sql.ask(f"EXPLAIN QUERY PLAN {statement}"))
            assert "USING INTEGER PRIMARY KEY (rowid>?)" in plan


@pytest.mark.django_db(transaction=True)
class TestRollupsThatGoOn:
    def test_values_beyond_any_sum_are_left_out(self, station, neighbour, kind):
        huge = [1.7e308, -1.7e308, 1.1e150, -1.1e150]
        measure(station, *[(DAY, value) for value in huge + huge], (DAY, 2.0))
        measure(neighbour, (DAY, 1.7e308))
        names = {station.pk: "STATION-001", neighbour.pk: "STATION-002"}
        fresh = rollups.buckets(kind, names, "temperature", HOURS, DAY)

        assert rollups.roll_up() == 10
        assert figures() == {DAY: (2.0, 2.0, 2.0, 1)}
        assert figures(key="weatherstation/STATION-002") == {}
        assert rollups.buckets(kind, names, "temperature", HOURS, DAY) == fresh

    @pytest.mark.parametrize("at_first", [0, 1])
    def test_what_is_taken_in_while_a_chart_is_read_counts_once(self, station, kind, at_first):
        """Between any two statements, however often."""
        measure(station, *[(DAY, float(n)) for n in range(61)])
        rollups.roll_up(limit=at_first)
        taken, outer = [], threading.Lock()  # statements of the roll-up itself come here too

        def take_in_one_more(execute, *arguments):
            if outer.acquire(blocking=False):
                taken.append(rollups.roll_up(limit=1))
                outer.release()
            return execute(*arguments)

        with connection.execute_wrapper(take_in_one_more):
            (shown,) = rollups.buckets(kind, {station.pk: "STATION-001"}, "temperature", HOURS, DAY)

        assert (shown.low, shown.mean, shown.high) == (0.0, 30.0, 60.0)
        assert len(taken) >= 3
        assert set(taken) == {1}

    def test_large_values_have_a_mean(self, station):
        """Together, one after the other, and of both signs: no sum on the way overflows."""
        for _ in range(3):
            measure(station, *[(DAY, value) for value in (1e150, -1e150, 1e150, 1e150)])
            roll_up()

        assert figures(DAYS) == {DAY: (-1e150, 1e150, 5e149, 12)}

    def test_a_row_that_cannot_be_added_holds_up_no_other(self, station, neighbour, caplog):
        """What is stored of its hour is broken, so nothing can be added to it."""
        measure(neighbour, (DAY, 1.0), (DAY + HOUR, 1.0))
        measure(station, (DAY, 1.0))
        roll_up()
        Rollup.objects.filter(device_key="weatherstation/STATION-001").update(mean=math.inf, count=2**63 - 1)
        measure(neighbour, (DAY, 3.0))
        measure(station, (DAY, 3.0))
        measure(neighbour, (DAY, 5.0))

        assert rollups.roll_up() == 3
        assert "rollups.row_left_out" in caplog.text
        assert figures(key="weatherstation/STATION-002")[DAY] == (1.0, 5.0, 3.0, 3)
        assert rollups.roll_up() == 0

    def test_ids_that_begin_anew_are_taken_in(self, station, kind, caplog):
        RolledUp.objects.create(kind="weatherstation", last_id=10**12)
        measure(station, (DAY, 1.0), (DAY, 3.0))

        prune("--older-than", "1d")

        assert not WeatherStationReading.objects.exists()
        assert figures() == {DAY: (1.0, 3.0, 2.0, 2)}
        assert "rollups.ids_began_anew" in caplog.text

    def test_ids_of_rows_that_went_are_no_new_beginning(self, station, kind):
        measure(station, (DAY, 1.0), (DAY, 3.0))
        roll_up()
        WeatherStationReading.objects.filter(temperature=3.0).delete()

        assert rollups.roll_up() == 0
        assert figures() == {DAY: (1.0, 3.0, 2.0, 2)}

    def test_rollups_that_no_declaration_names_go_as_well(self, station, keeps):
        """Of a reading that is not declared any more, and of a device that was deleted by SQL."""
        keeps(days="30d")
        once = {"name": "once", "period": "day", "start": DAY, "low": 1, "high": 1, "mean": 1, "count": 1}
        for key, name in (("STATION-001", "once"), ("STATION-001", "temperature"), ("GONE", "once")):
            Rollup.objects.create(device_key=f"weatherstation/{key}", **once | {"name": name})
        other = Rollup.objects.create(device_key="weatherstations/STATION-001", **once)

        assert prune("--dry-run")["days"]["deleted"] == 3
        assert prune()["days"]["deleted"] == 3
        assert list(Rollup.objects.all()) == [other]

    def test_pairs_come_in_pages(self, station):
        measure(station, (DAY, 1.0), (DAY + HOUR, 2.0))
        roll_up()
        WeatherStationReading.objects.create(
            device=station, timestamp=DAY, rainfall=1.0, received_at=timezone.now()
        )
        roll_up()
        first = rollup_sql.pairs(("", ""), 1)

        assert first == [("weatherstation/STATION-001", "rainfall")]
        assert rollup_sql.pairs(first[0], 5) == [("weatherstation/STATION-001", "temperature")]


READINGS = "fleet_weatherstationreading"


def longest_insert(device, moment, stop):
    """Store readings of *moment* until *stop*; the seconds that the slowest of them took."""
    longest = 0.0
    with psycopg.connect(database_url(), autocommit=True) as other:
        while not stop.is_set():
            began = time.monotonic()
            other.execute(
                f"INSERT INTO {READINGS} (device_id, timestamp, received_at, temperature)"
                " VALUES (%s, %s, now(), -5)",
                [device.pk, moment],
            )
            longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.postgresql_only
class TestPartitionsThatGoOn:
    def convert(self):
        call_command("partition_readings", "weatherstation", "--yes", stdout=StringIO())

    def without_the_last(self):
        """Take away the last partition, as if nothing had run for long; it."""
        last = partitions.partitions_of(READINGS)[-2]
        sql(f"DROP TABLE {last.name}")
        return last

    def test_where_nothing_is_to_do_it_is_one_question(self, months_of_readings, django_assert_num_queries):
        self.convert()

        with django_assert_num_queries(1):
            assert partitions.extend_all() == 0

    def test_many_rows_leave_the_rest_while_others_write(self, months_of_readings):
        self.convert()
        last = self.without_the_last()
        sql(
            f"INSERT INTO {READINGS} (device_id, timestamp, received_at, temperature)"
            f" SELECT {months_of_readings.pk}, '{last.start.isoformat()}'::timestamptz + n * interval '1 s', now(), 1"
            " FROM generate_series(1, 50000) AS n"
        )
        stop = threading.Event()
        with ThreadPoolExecutor() as pool:
            writer = pool.submit(longest_insert, months_of_readings, last.start + HOUR, stop)
            try:
                made = partitions.extend_all()
            finally:
                stop.set()
            longest = writer.result()

        assert made == 1
        assert longest < 1.0
        assert sql(f"SELECT count(*) FROM {last.name} WHERE temperature = 1") == [(50_000,)]
        (written,) = sql(f"SELECT count(*), count(DISTINCT id) FROM {READINGS} WHERE temperature = -5")
        assert sql(f"SELECT count(*) FROM {last.name} WHERE temperature = -5") == [(written[0],)]
        assert written[0] == written[1] > 0
        assert sql(f"SELECT count(*) FROM {READINGS}_rest") == [(1,)]

    def test_changes_of_waiting_rows_are_not_lost(self, months_of_readings, monkeypatch):
        """A row is changed, one deleted, and one gets a time that is in the partition, behind the copy."""
        self.convert()
        last = self.without_the_last()
        rows = measure(months_of_readings, *[(last.start + n * HOUR, float(n)) for n in range(30)])
        outside = WeatherStationReading.objects.get(temperature=-1.0)
        statements = [
            f"UPDATE {READINGS} SET temperature = -77 WHERE id = {rows[3].pk}",
            f"DELETE FROM {READINGS} WHERE id = {rows[4].pk}",
            f"UPDATE {READINGS} SET timestamp = '{(last.start + HOUR).isoformat()}' WHERE id = {outside.pk}",
            f"DELETE FROM {READINGS} WHERE id = {rows[29].pk}",
        ]

        class Meddling(Pace):
            def check(self):
                if statements and sql(f"SELECT count(*) FROM {last.name}")[0][0] >= 10:
                    with psycopg.connect(database_url()) as other:
                        while statements:
                            other.execute(statements.pop())

        monkeypatch.setattr(partitions, "Pace", lambda stop, **_: Meddling(rows=10, stop=stop))
        assert partitions.extend_all(Pace()) == 1

        assert not statements
        found = dict(sql(f"SELECT id, temperature FROM {last.name}"))
        assert found == {row.pk: row.temperature for row in rows if row.temperature not in (4, 29)} | {
            rows[3].pk: -77.0,
            outside.pk: -1.0,
        }
        assert WeatherStationReading.objects.count() == 100 + 28 + 1

    def test_two_workers_make_each_partition_once(self, months_of_readings):
        self.convert()
        self.without_the_last()

        def extend(_):
            try:
                return partitions.extend_all()
            finally:
                connections.close_all()

        with ThreadPoolExecutor() as pool:
            assert sum(pool.map(extend, range(2))) == 1

    def test_a_table_of_somebody_else_stays(self, months_of_readings):
        sql(f"CREATE TABLE {READINGS}_partitioned AS SELECT 1 AS precious")
        try:
            with pytest.raises(CommandError, match="which is not ours to drop"):
                self.convert()

            assert partitions.extend_all() == 0
            assert sql(f"SELECT precious FROM {READINGS}_partitioned") == [(1,)]
        finally:
            sql(f"DROP TABLE {READINGS}_partitioned")

    def test_rows_with_ids_below_one_are_copied(self, months_of_readings):
        WeatherStationReading.objects.bulk_create(
            WeatherStationReading(
                id=pk, device=months_of_readings, timestamp=timezone.now(), received_at=timezone.now()
            )
            for pk in (-5, 0)
        )
        self.convert()

        assert WeatherStationReading.objects.filter(pk__lt=1).count() == 2

    def test_owner_options_and_comment_stay(self, months_of_readings):
        """The owner is a role that whoever converts belongs to: here the one of the database's owner."""
        sql(f"ALTER TABLE {READINGS} OWNER TO pg_database_owner")
        sql(f"ALTER TABLE {READINGS} SET (autovacuum_vacuum_scale_factor = 0.01, fillfactor = 90)")
        sql(f"COMMENT ON TABLE {READINGS} IS 'Of the roof'")

        self.convert()
        self.without_the_last()
        partitions.extend_all()

        options = ["autovacuum_vacuum_scale_factor=0.01", "fillfactor=90"]
        found = {
            name: what
            for name, *what in sql(
                "SELECT relname, relowner::regrole::text, reloptions, obj_description(oid, 'pg_class')"
                f" FROM pg_class WHERE relname LIKE '{READINGS}%' AND relkind IN ('r', 'p')"
            )
        }
        assert found.pop(READINGS) == ["pg_database_owner", None, "Of the roof"]
        assert set(found) == {one.name for one in partitions.partitions_of(READINGS)}
        assert all(what == ["pg_database_owner", options, None] for what in found.values())

    @pytest.mark.parametrize(
        ("make", "undo", "refused"),
        [
            (
                f"CREATE PUBLICATION roof FOR TABLE {READINGS}",
                "DROP PUBLICATION roof",
                "has publications, which would be lost: roof",
            ),
            (
                f"GRANT SELECT (temperature) ON {READINGS} TO PUBLIC",
                f"REVOKE SELECT (temperature) ON {READINGS} FROM PUBLIC",
                "has columns that were granted, which would be lost: temperature",
            ),
        ],
    )
    def test_what_cannot_be_kept_is_refused(self, months_of_readings, make, undo, refused):
        sql(make)
        try:
            with pytest.raises(CommandError, match=refused):
                self.convert()
        finally:
            sql(undo)

    def test_what_a_killed_conversion_left_goes(self, months_of_readings, kind):
        """The mirror would break the next migration; a conversion that runs is left alone."""
        made = partitions.plan(kind, "month")
        partitions._build(made)
        partition_sql.mirror(made.table, made.beside)
        with partition_sql.alone(READINGS), ThreadPoolExecutor() as pool:
            pool.submit(lambda: (partitions.extend_all(), connections.close_all())).result()
            assert sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mirror%'") == [(2,)]

        partitions.extend_all()

        assert sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mirror%'") == [(0,)]
        assert sql(f"SELECT to_regclass('{made.beside}')") == [(None,)]

    def test_a_table_that_is_not_analyzed_is_converted(self, months_of_readings, monkeypatch, caplog):
        def do(statement, parameters=None):
            if statement.startswith("ANALYZE"):
                raise OperationalError("canceling statement due to statement timeout")
            partition_sql.do(statement, parameters)

        monkeypatch.setattr(partitions, "do", do)

        self.convert()

        assert partitions.partitions_of(READINGS)
        assert "partitions.not_analyzed" in caplog.text
