"""Retention of the values and events of endpoints, and partitions of their history."""

from datetime import timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from devicehub.db.batches import Pace
from devicehub.history import rollups
from devicehub.lwm2m.models import EndpointMessage, Event, EventResource, Resource, ResourceValue
from devicehub.models import Rollup
from devicehub.retention import division, page_layout, partitions, pruning
from rig.endpoints import HUMIDITY, TEMPERATURE, observe
from rig.endpoints import endpoint as endpoint
from rig.endpoints import kind as kind
from rig.endpoints import other_endpoint as other_endpoint
from rig.messages import send
from rig.stations import no_rest as no_rest
from rig.telemetry import DAYS, figures, prune, roll_up, sql

VALUES = ResourceValue._meta.db_table


def ago(days):
    return timezone.now() - timedelta(days=days)


def with_parts(endpoint, moment, number=2):
    """Store an event of a project's type with some values of its own."""
    event = Event.objects.create(device=endpoint, type="weather", timestamp=moment, received_at=moment)
    EventResource.objects.bulk_create(
        EventResource(
            device=endpoint, event=event, path=f"3303/{n}/5700", type="Float", number=1.0, timestamp=moment
        )
        for n in range(number)
    )


class TestPruning:
    @pytest.fixture
    def spoken(self, endpoint):
        """Store messages, values and events of 1 and of 60 days ago."""
        for days in (60, 1):
            send(endpoint, [{"n": "/3303/0/5700", "v": days}, {"n": "/3304/0/5700", "v": 50}], at=ago(days))
            with_parts(endpoint, ago(days))
        first = EndpointMessage.objects.order_by("pk").values_list("pk", flat=True)[:1]
        EndpointMessage.objects.filter(pk__in=list(first)).update(received_at=ago(60))

    def test_nothing_goes_unless_the_settings_say_so(self, spoken):
        assert [one["before"] for one in prune(slug="lwm2m").values()] == [None] * 6
        assert ResourceValue.objects.count() == 4

    def test_old_values_and_events_go_and_the_latest_stay(self, spoken, settings):
        settings.DEVICEHUB_LWM2M_KEEP = {"keep_readings": "30d", "keep_messages": "30d"}
        found = prune("--dry-run", slug="lwm2m")

        done = prune(slug="lwm2m")

        counts = {name: one["deleted"] for name, one in done.items()}
        assert counts == {"readings": 2, "event_values": 2, "events": 2, "messages": 1, "hours": 0, "days": 0}
        assert {name: one["deleted"] for name, one in found.items()} == counts
        assert {one.path: one.value for one in ResourceValue.objects.all()} == {TEMPERATURE: 1, HUMIDITY: 50}
        assert (Event.objects.count(), EventResource.objects.count()) == (2, 2)
        assert (Resource.objects.count(), EndpointMessage.objects.count()) == (2, 1)

    def test_values_are_rolled_up_before_they_go(self, spoken):
        prune("--older-than", "30d", slug="lwm2m")

        means = (
            Rollup.objects.filter(name=TEMPERATURE, period="day")
            .order_by("start")
            .values_list("mean", flat=True)
        )
        assert list(means) == [60.0, 1.0]

    def test_a_value_that_is_not_rolled_up_stays_and_its_event_goes(self, endpoint, monkeypatch):
        observe(endpoint, (ago(60), 1.0))
        roll_up()
        observe(endpoint, (ago(60), 2.0))
        monkeypatch.setattr(rollups, "roll_up", lambda **_: 0)  # The value came after the last roll-up.
        first = Event.objects.order_by("pk").first().pk
        Event.objects.filter(pk=first).update(id=10**9)  # Ids of events do not bound those of values.

        done = prune("--older-than", "30d", slug="lwm2m")

        assert (done["readings"]["deleted"], done["events"]["deleted"]) == (1, 2)
        assert [one.value for one in ResourceValue.objects.all()] == [2.0]

    def test_rollups_go_by_their_age(self, spoken, settings):
        settings.DEVICEHUB_LWM2M_KEEP = {"keep_hours": "30d", "keep_days": timedelta(days=30)}
        roll_up()

        done = prune(slug="lwm2m")

        assert (done["hours"]["deleted"], done["days"]["deleted"]) == (2, 2)
        assert Rollup.objects.filter(name=TEMPERATURE).count() == 2

    @pytest.mark.django_db(transaction=True)
    def test_many_events_of_one_time_go_in_portions_with_their_values(self, endpoint, kind):
        for moment in [ago(60)] * 4 + [ago(59)] * 3:
            with_parts(endpoint, moment, 5)
        with_parts(endpoint, ago(1), 5)
        portions = []

        pruning.prune(kind, Pace(rows=3, report=portions.append), older_than=timedelta(days=30))

        assert (Event.objects.count(), EventResource.objects.count()) == (1, 5)
        assert sum(portions) == 7 * 6
        assert max(portions) == 3

    @pytest.mark.sqlite_first
    @pytest.mark.parametrize(
        ("keep", "named"),
        [
            ({"keep_reading": "30d"}, "keep_reading"),
            ({"keep_readings": "soon"}, "keep_readings"),
            ({"keep_readings": ""}, "keep_readings"),
            ("30d", "30d"),
        ],
    )
    def test_a_check_refuses_settings_that_cannot_be_read(self, settings, keep, named):
        settings.DEVICEHUB_LWM2M_KEEP = keep

        [error] = [error for error in run_checks() if error.id == "devicehub.E020"]

        assert error.msg.startswith("lwm2m: ")
        assert named in error.msg


@pytest.mark.postgresql_only
class TestPartitions:
    @pytest.fixture
    def table(self, transactional_db, django_db_setup):
        """Re-create the table of values after the test, as the migrations made it."""
        yield
        with connection.schema_editor() as editor:
            editor.execute(f"DROP TABLE {VALUES} CASCADE")
            editor.create_model(ResourceValue)
        django_db_setup.accept_schema()

    @pytest.fixture
    def divided(self, table, endpoint, kind, monkeypatch):
        """Divide the table by months, 50 days ago by the clock; then store a value for each of the last 100 days."""
        then = SimpleNamespace(now=lambda: ago(50))
        with monkeypatch.context() as past:
            past.setattr(division, "timezone", then)
            past.setattr(partitions, "timezone", then)
            division.convert(division.plan(kind, "month"), Pace())
        observe(endpoint, *[(ago(days), float(days)) for days in range(100)])
        return endpoint

    def test_messages_are_stored_and_rolled_up(self, divided):
        send(divided, [{"n": "/3303/0/5700", "v": 5.5}], at=timezone.now())
        roll_up()

        assert ResourceValue.objects.get(number=5.5).event.type == "notification"
        assert sum(count for *_, count in figures(DAYS, TEMPERATURE, "lwm2m/urn:dev:a").values()) == 101

    def test_the_command_divides_a_table_with_rows(self, table, endpoint):
        observe(endpoint, (ago(1), 1.0))

        call_command("partition_readings", "lwm2m", "--yes", stdout=StringIO())

        first, *_, rest = partitions.partitions_of(VALUES)
        assert (first.name, rest.name) == (f"{VALUES}_first", f"{VALUES}_rest")
        assert sql(f"SELECT count(*) FROM {first.name}") == [(1,)]

    def test_missing_partitions_are_made(self, divided, kind):
        partitions.extend(kind)
        last = partitions.partitions_of(VALUES)[-2]
        sql(f"DROP TABLE {last.name}")

        assert partitions.extend(kind) == 1
        assert partitions.partitions_of(VALUES)[-2] == last

    def test_a_month_that_is_too_old_is_dropped_whole_once_it_is_rolled_up(self, divided, kind):
        first = partitions.partitions_of(VALUES)[0]
        assert partitions.drop_before(kind, first.end, 0, Pace()) == 0

        done = prune("--older-than", "1h", slug="lwm2m")

        assert done["readings"]["partitions"] >= 1
        assert first not in partitions.partitions_of(VALUES)
        assert ResourceValue.objects.count() == 1
        assert sum(count for *_, count in figures(DAYS, TEMPERATURE, "lwm2m/urn:dev:a").values()) == 100


def test_tables_of_endpoints_and_latest_values_have_room_for_new_versions_of_rows(db):
    if connection.vendor == "postgresql":
        room = f"fillfactor={page_layout.FILLFACTOR}"
        expected = {"lwm2m_endpoint": [room], "lwm2m_resource": [room], VALUES: None}
        found = sql(
            "SELECT relname, reloptions FROM pg_class"
            " WHERE relname IN ('lwm2m_endpoint', 'lwm2m_resource', 'lwm2m_resourcevalue')"
        )
        assert dict(found) == expected
    else:
        page_layout.leave_room(using="default")
