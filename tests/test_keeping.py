"""What is kept and for how long: rollups, pruning, partitions, and devices that end. Alike on both databases."""

import json
import random
from datetime import UTC, datetime, timedelta
from io import StringIO

import psycopg
import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection, models, transaction
from django.utils import timezone

from devicehub import partitions, retention, rollups
from devicehub.batches import Pace, Stopped
from devicehub.ingest.message import Message
from devicehub.ingest.pipeline import pipeline
from devicehub.models import QuarantinedMessage, RolledUp, Rollup
from devicehub.registry import registry
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from tests.hub import database_url

DAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS, DAYS = Rollup.Period.HOUR, Rollup.Period.DAY


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nobody else writes, so nobody must be let in."""
    monkeypatch.setattr("devicehub.batches.REST", {"sqlite": 0, "postgresql": 0})


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

    def test_nothing_of_a_device_that_was_deleted_meanwhile_is_written(self, station, kind, monkeypatch):
        measure(station, (DAY, 1.0))
        compute = rollups._compute

        def then_delete(*arguments):
            found = compute(*arguments)
            monkeypatch.setattr(rollups, "_compute", compute)
            station.delete()
            return found

        monkeypatch.setattr(rollups, "_compute", then_delete)
        roll_up()

        assert not Rollup.objects.exists()

    def test_what_another_process_took_in_meanwhile_counts_once(self, station, kind, monkeypatch):
        measure(station, (DAY, 1.0), (DAY, 3.0))
        compute = rollups._compute

        def after_another(*arguments):
            monkeypatch.setattr(rollups, "_compute", compute)
            found = compute(*arguments)
            rollups.roll_up(limit=1)
            return found

        monkeypatch.setattr(rollups, "_compute", after_another)
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

        retention.prune(kind, Pace(rows=4, report=batches.append), older_than=timedelta(days=1))

        assert not WeatherStationReading.objects.exists()
        assert max(batches) == 4
        assert sum(batches) == 27

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
            retention.prune(kind, pace, older_than=timedelta(days=1))

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
                        "UPDATE fleet_weatherstationreading SET temperature = 77 WHERE id = %s",
                        rows[20 + number],
                    ),
                    ("UPDATE fleet_weatherstationreading SET temperature = 78 WHERE id = %s", rows[50]),
                ):
                    other.execute(sql, [row.pk])
                other.execute(
                    "INSERT INTO fleet_weatherstationreading (device_id, timestamp, received_at, temperature)"
                    " VALUES (%s, now(), now(), 99)",
                    [months_of_readings.pk],
                )
            done.append(number)

        partitions.convert(partitions.plan(kind, "week"), Pace(rows=20, report=somebody_writes))

        found = list(WeatherStationReading.objects.all())
        assert len(done) > 3
        assert len([r for r in found if r.temperature == 99]) == len(done)
        assert len([r for r in found if r.temperature == 77]) == len(done)
        assert len([r for r in found if r.temperature == 78]) == 1
        gone = {rows[n].pk for n in done} | {rows[-2 - n].pk for n in done}
        assert {r.pk for r in found if r.temperature != 99} == {r.pk for r in rows} - gone

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
