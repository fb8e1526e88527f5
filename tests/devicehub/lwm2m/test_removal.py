"""Removal of endpoints with their resources, values and events: in small portions, counted, and only theirs."""

import json
import tracemalloc
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub import removal
from devicehub.db import statements
from devicehub.db.batches import Pace
from devicehub.ingest import store
from devicehub.lwm2m.models import Endpoint, EndpointMessage, Event, EventResource, Resource, ResourceValue
from devicehub.models import Rollup
from rig.endpoints import endpoint as endpoint
from rig.endpoints import kind as kind
from rig.endpoints import other_endpoint as other_endpoint
from rig.messages import FAILED, send
from rig.stations import no_rest as no_rest
from rig.telemetry import DAY, HOUR, roll_up

TABLES = (ResourceValue, Event, Resource, EndpointMessage)


def speak(endpoint, hours=3):
    """Send two values each hour, and store an event of a project's type with two values of its own."""
    for hour in range(hours):
        send(
            endpoint, [{"n": "/3303/0/5700", "v": hour}, {"n": "/3/0/0", "vs": "ours"}], at=DAY + hour * HOUR
        )
    event = Event.objects.create(device=endpoint, type="weather", timestamp=DAY, received_at=timezone.now())
    EventResource.objects.bulk_create(
        EventResource(device=endpoint, event=event, path=path, type="Float", number=1.0, timestamp=DAY)
        for path in ("1/0/0", "1/0/1")
    )
    roll_up()


def remains(endpoint):
    """Return the numbers of rows of *endpoint*: values, events, resources, messages, values of events, rollups."""
    counts = [model.objects.filter(device_id=endpoint.pk).count() for model in TABLES]
    of_events = EventResource.objects.filter(event__device_id=endpoint.pk).count()
    return [*counts, of_events, Rollup.objects.filter(device_key=f"lwm2m/{endpoint.device_id}").count()]


WHOLE, NOTHING = [6, 4, 2, 3, 2, 4], [0] * 6


@pytest.fixture
def spoken(endpoint, other_endpoint):
    for one in (endpoint, other_endpoint):
        speak(one)
        assert remains(one) == WHOLE
    return endpoint


class TestErasure:
    def test_everything_of_it_goes_and_is_counted(self, spoken, other_endpoint, kind):
        done = removal.erase(kind, "urn:dev:a", Pace())

        assert (done.device, done.readings, done.messages, done.rollups) == (1, 6, 3, 4)
        assert done.others == {"events": 4, "resources": 2, "event_values": 2}
        assert remains(spoken) == NOTHING
        assert remains(other_endpoint) == WHOLE
        assert [one.device_id for one in Endpoint.objects.all()] == ["urn:dev:b"]

    @pytest.mark.django_db(transaction=True)
    def test_the_rows_go_in_portions(self, spoken, kind, other_endpoint):
        portions = []

        removal.erase(kind, "urn:dev:a", Pace(rows=2, report=portions.append))

        assert max(portions) == 2
        assert sum(portions) == sum(WHOLE)
        assert remains(spoken) == NOTHING
        assert remains(other_endpoint) == WHOLE

    def test_the_command_counts_before_and_after(self, spoken):
        def run(*options):
            out = StringIO()
            call_command("erase_device", "lwm2m", "urn:dev:a", "--json", *options, stdout=out)
            return json.loads(out.getvalue())

        before, after = run("--dry-run"), run("--yes")

        named = ("readings", "events", "resources", "event_values", "messages")
        assert [before[name] for name in named] == [after[name] for name in named] == [6, 4, 2, 2, 3]

    def test_rows_that_were_stored_meanwhile_go_and_are_counted(self, spoken, kind, monkeypatch):
        drain = removal.deletion.drain_rows

        def then_stored(*arguments):
            done = drain(*arguments)
            speak(spoken, hours=0)
            return done

        monkeypatch.setattr(removal.deletion, "drain_rows", then_stored)
        done = removal.erase(kind, "urn:dev:a", Pace())

        assert done.others == {"events": 5, "resources": 2, "event_values": 4}
        assert remains(spoken) == NOTHING

    @pytest.mark.django_db(transaction=True)
    def test_a_message_that_is_being_stored_leaves_no_rows(self, endpoint, kind, monkeypatch):
        """The history names its endpoint without a constraint in the database."""
        load = store.load_devices

        def erased_meanwhile(named):
            found = load(named)
            monkeypatch.setattr(store, "load_devices", load)
            removal.erase(kind, "urn:dev:a", Pace())
            return found

        monkeypatch.setattr(store, "load_devices", erased_meanwhile)

        assert send(endpoint, [{"n": "/3303/0/5700", "v": 1}]) == FAILED
        assert remains(endpoint) == NOTHING


class TestDeletion:
    @pytest.mark.parametrize(
        "delete",
        [
            lambda endpoint: endpoint.delete(),
            lambda endpoint: Endpoint.objects.filter(pk=endpoint.pk).delete(),
            lambda endpoint: (removal.request(endpoint), removal.work_off()),
        ],
        ids=["model", "query set", "request"],
    )
    def test_its_rows_go_with_it(self, spoken, other_endpoint, delete):
        delete(spoken)

        assert remains(spoken) == NOTHING
        assert remains(other_endpoint) == WHOLE
        assert not Endpoint.objects.filter(device_id="urn:dev:a").exists()

    @pytest.mark.sqlite_first
    def test_its_rows_are_counted_by_name_before(self, spoken):
        assert removal.count_rows(spoken) == {
            "readings": 6, "events": 4, "resources": 2, "messages": 3, "event_values": 2,
        }  # fmt: skip

    @pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.long)])
    @pytest.mark.django_db(transaction=True)
    def test_many_values_of_many_paths_are_never_loaded(self, endpoint, other_endpoint, count):
        speak(other_endpoint)
        many(endpoint, count)
        removal.request(endpoint)
        portions = []
        tracemalloc.start()
        try:
            removal.work_off(Pace(report=portions.append))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert most < 4 << 20  # bytes; 20,000 model instances take more than 10 MB
        assert sum(portions) == count + 1
        assert max(portions) == 5_000
        assert remains(endpoint) == NOTHING
        assert remains(other_endpoint) == WHOLE

    @pytest.mark.sqlite_only
    @pytest.mark.django_db(transaction=True)
    def test_each_portion_is_found_by_an_index(self, spoken):
        """The plan of PostgreSQL depends on its statistics."""
        removal.request(spoken)
        with CaptureQueriesContext(connection) as captured:
            removal.work_off(Pace(rows=2))

        tables = ("lwm2m_resourcevalue", "lwm2m_event", "lwm2m_resource", "lwm2m_eventresource")
        windows = [
            q["sql"]
            for q in captured
            if any(f'FROM "{table}" WHERE' in q["sql"] for table in tables) and '"."' not in q["sql"]
        ]
        plans = [row[-1] for sql in windows for row in statements.query(f"EXPLAIN QUERY PLAN {sql}")]
        assert len(windows) > 10
        assert [step for step in plans if step.startswith("SCAN") or "TEMP B-TREE" in step] == []
        assert any("lwm2m_value_history (device_id=? AND (path,timestamp)>(?,?)" in step for step in plans)


def many(endpoint, count):
    """Store *count* values of *endpoint* with SQL, one each second under 50 paths in turn, in one event."""
    event = Event.objects.create(
        device=endpoint, type="notification", timestamp=DAY, received_at=timezone.now()
    )
    numbers, path, moment = (
        (
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %(count)s)",
            "printf('3303/%%d/5700', n %% 50)",
            "datetime(%(day)s, printf('+%%d seconds', n))",
        )
        if connection.vendor == "sqlite"
        else (
            "WITH numbers(n) AS (SELECT generate_series(1, %(count)s))",
            "format('3303/%%s/5700', n %% 50)",
            "%(day)s::timestamptz + n * interval '1 s'",
        )
    )
    statements.execute(
        f"{numbers} INSERT INTO lwm2m_resourcevalue (device_id, path, type, number, timestamp, received_at, event_id)"
        f" SELECT %(device)s, {path}, 'Float', n, {moment}, %(day)s, %(event)s FROM numbers",
        {"count": count, "device": endpoint.pk, "day": statements.as_time(DAY), "event": event.pk},
    )
