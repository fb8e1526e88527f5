"""The history of resources: rollups, series, names and charts of paths, as for the readings of a type."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from devicehub.dashboard import chart, live
from devicehub.dashboard.chart import Chart, Tail
from devicehub.dashboard.selection import parse
from devicehub.db import statements
from devicehub.history import latest, rollups, rows, series
from devicehub.history.series import Resolution
from devicehub.lwm2m import catalogue
from devicehub.lwm2m.models import ObjectType, ResourceType
from devicehub.models import Rollup
from rig.endpoints import HUMIDITY, MAKER, TEMPERATURE, observe
from rig.endpoints import endpoint as endpoint
from rig.endpoints import kind as kind
from rig.endpoints import other_endpoint as other_endpoint
from rig.messages import send
from rig.telemetry import DAY, DAYS, HOUR, HOURS, figures, roll_up

MINUTE = timedelta(minutes=1)
EVERYBODY = User(is_superuser=True)
KEY = "lwm2m/urn:dev:a"


@pytest.fixture
def devices(endpoint):
    return {endpoint.pk: endpoint.device_id}


@pytest.fixture
def definition(db):
    """Define the temperature."""
    of, _ = ObjectType.objects.get_or_create(object_id=3303, version="1.0")
    meaning = {"name": "Sensor Value", "type": "Float", "unit": "Cel"}
    ResourceType.objects.update_or_create(object=of, resource_id=5700, defaults=meaning)
    catalogue.clear()
    yield
    catalogue.clear()


def of_path(path, period=HOURS):
    return figures(period, path, KEY)


class TestRollups:
    def test_each_path_has_its_own_figures(self, endpoint, other_endpoint):
        observe(endpoint, (DAY, 1.0), (DAY + HOUR / 2, 4.0), (DAY + HOUR, 10.0))
        observe(endpoint, (DAY, 40), path=HUMIDITY)
        observe(other_endpoint, (DAY, 99.0))

        assert rollups.roll_up() == 5
        assert of_path(TEMPERATURE) == {DAY: (1.0, 4.0, 2.5, 2), DAY + HOUR: (10.0, 10.0, 10.0, 1)}
        assert of_path(TEMPERATURE, DAYS) == {DAY: (1.0, 10.0, 5.0, 3)}
        assert of_path(HUMIDITY) == of_path(HUMIDITY, DAYS) == {DAY: (40.0, 40.0, 40.0, 1)}
        assert rollups.roll_up() == 0

    def test_only_numbers_count(self, endpoint):
        observe(endpoint, (DAY, "ours"), (DAY, "theirs"), path=MAKER)
        observe(endpoint, (DAY, 1.7e308), (DAY, 2.0))
        observe(endpoint, (DAY, True), (DAY, False), path="3342/0/5500")

        assert rollups.roll_up() == 6
        assert set(Rollup.objects.values_list("name", flat=True)) == {TEMPERATURE, "3342/0/5500"}
        assert of_path(TEMPERATURE) == {DAY: (2.0, 2.0, 2.0, 1)}
        assert of_path("3342/0/5500") == {DAY: (0.0, 1.0, 0.5, 2)}

    def test_values_count_where_they_belong_in_any_order_and_steps(self, endpoint):
        for hour in (2, 0, 1, 25, 0):
            observe(endpoint, (DAY + hour * HOUR, float(hour)))
            observe(endpoint, (DAY + hour * HOUR, 10.0 * hour), path=HUMIDITY)
            rollups.roll_up(limit=1)
        roll_up()

        assert of_path(TEMPERATURE, DAYS) == {
            DAY: (0.0, 2.0, 0.75, 4),
            DAY + timedelta(days=1): (25.0, 25.0, 25.0, 1),
        }
        assert of_path(HUMIDITY)[DAY] == (0.0, 0.0, 0.0, 2)

    def test_a_value_of_a_message_is_rolled_up(self, endpoint):
        send(endpoint, [{"n": "/3303/0/5700", "v": 21.5, "t": DAY.timestamp()}], at=DAY + MINUTE)
        roll_up()

        assert of_path(TEMPERATURE) == {DAY: (21.5, 21.5, 21.5, 1)}

    @pytest.mark.parametrize("limit", [0, 1, 2, 3])
    def test_buckets_have_the_values_that_are_not_rolled_up_yet(
        self, endpoint, other_endpoint, kind, devices, limit
    ):
        observe(endpoint, (DAY, 1.0), (DAY + MINUTE, 3.0))
        observe(endpoint, (DAY, 50.0), path=HUMIDITY)
        observe(other_endpoint, (DAY, 99.0))
        if limit:
            rollups.roll_up(limit=limit)

        shown = rollups.buckets(kind, devices, TEMPERATURE, HOURS, DAY)

        assert shown == [(endpoint.pk, DAY, 1.0, 2.0, 3.0)]
        assert rollups.buckets(kind, devices, MAKER, HOURS, DAY) == []

    @pytest.mark.django_db(transaction=True)
    def test_a_value_that_cannot_be_added_holds_up_no_other(self, endpoint, caplog):
        observe(endpoint, (DAY, 1.0))
        observe(endpoint, (DAY, 1.0), path=HUMIDITY)
        roll_up()
        Rollup.objects.filter(name=HUMIDITY).update(mean=float("inf"), count=2**63 - 1)
        observe(endpoint, (DAY, 3.0))
        observe(endpoint, (DAY, 3.0), path=HUMIDITY)
        observe(endpoint, (DAY, 5.0))

        assert rollups.roll_up() == 3
        assert "rollups.row_left_out" in caplog.text
        assert of_path(TEMPERATURE)[DAY] == (1.0, 5.0, 3.0, 3)

    @pytest.mark.sqlite_only
    def test_new_rows_are_read_along_their_ids(self, endpoint):
        """The plan of PostgreSQL depends on its statistics."""
        observe(endpoint, *[(DAY + n * MINUTE, 1.0) for n in range(100)])
        with CaptureQueriesContext(connection) as captured:
            roll_up()

        (statement, *_) = [q["sql"] for q in captured if "GROUP BY" in q["sql"]]
        plan = " ".join(row[-1] for row in statements.query(f"EXPLAIN QUERY PLAN {statement}"))
        assert "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan


class TestSeries:
    def test_a_short_range_is_given_value_by_value(self, kind, devices, endpoint, other_endpoint):
        observe(endpoint, (DAY, 1.0), (DAY + MINUTE, "broken"), (DAY + 2 * MINUTE, 3))
        observe(endpoint, (DAY, 50.0), path=HUMIDITY)
        observe(other_endpoint, (DAY, 99.0))

        given = series.resolution(kind, devices, TEMPERATURE, DAY, DAY + HOUR)

        assert given == Resolution()
        assert series.points(kind, devices, TEMPERATURE, DAY, given) == [
            (endpoint.pk, DAY, None, 1.0, None),
            (endpoint.pk, DAY + 2 * MINUTE, None, 3.0, None),
        ]

    def test_more_values_than_a_path_may_have_are_given_in_buckets(
        self, kind, devices, endpoint, monkeypatch
    ):
        monkeypatch.setattr(series, "MAX_POINTS", 3)
        observe(endpoint, *[(DAY + n * MINUTE, float(n)) for n in range(4)])
        observe(endpoint, *[(DAY + n * MINUTE, 50.0) for n in range(3)], path=HUMIDITY)

        given = series.resolution(kind, devices, TEMPERATURE, DAY, DAY + 24 * HOUR)

        assert given == Resolution(120)
        assert series.points(kind, devices, TEMPERATURE, DAY, given) == [
            (endpoint.pk, DAY + MINUTE, 0.0, 0.5, 1.0),
            (endpoint.pk, DAY + 3 * MINUTE, 2.0, 2.5, 3.0),
        ]
        assert series.resolution(kind, devices, HUMIDITY, DAY, DAY + 24 * HOUR) == Resolution()

    @pytest.mark.parametrize("given", [Resolution(), Resolution(3_600), Resolution(3_600, HOURS)], ids=str)
    @pytest.mark.parametrize("rolled_up", [False, True])
    def test_a_series_ends_before_its_end(self, kind, devices, endpoint, given, rolled_up):
        observe(endpoint, *[(DAY + n * HOUR, float(n)) for n in range(5)])
        if rolled_up:
            roll_up()

        points = series.points(kind, devices, TEMPERATURE, DAY + HOUR, given, DAY + 3 * HOUR)

        assert [point.value for point in points] == [1.0, 2.0]


class TestNames:
    def test_each_path_is_named_once_and_in_order(self, kind, endpoint, other_endpoint):
        for path in (TEMPERATURE, MAKER, HUMIDITY):
            observe(endpoint, *[(DAY + n * MINUTE, 1.0) for n in range(3)], path=path)
        observe(other_endpoint, (DAY, 1.0), path="6/0/0")

        assert rows.names(kind, endpoint.pk) == [MAKER, TEMPERATURE, HUMIDITY]
        assert rows.names(kind, endpoint.pk, most=2) == [MAKER, TEMPERATURE]
        assert rows.names(kind, endpoint.pk, after=TEMPERATURE) == [HUMIDITY]
        assert rows.names(kind, 0) == []

    @pytest.mark.sqlite_only
    def test_no_path_costs_a_scan_of_its_values(self, kind, endpoint):
        with CaptureQueriesContext(connection) as captured:
            rows.names(kind, endpoint.pk)

        plan = [row[-1] for row in statements.query(f"EXPLAIN QUERY PLAN {captured[0]['sql']}")]
        searches = [step for step in plan if "lwm2m_resourcevalue" in step]
        assert len(searches) == 2
        assert all("lwm2m_value_history (device_id=? AND path>?)" in step for step in searches)


class TestLatest:
    def test_endpoints_that_sent_a_path_last_come_first(self, kind, endpoint, other_endpoint):
        observe(other_endpoint, (DAY, 1.0))
        observe(endpoint, (DAY + HOUR, 1.0), (DAY + 30 * HOUR, 1.0))
        observe(other_endpoint, (DAY + HOUR, 1.0), path=HUMIDITY)

        assert latest.heard_last(kind, TEMPERATURE, DAY, DAY + HOUR, 1) == [endpoint.pk]
        assert latest.heard_last(kind, HUMIDITY, DAY, DAY + HOUR, 1) == [other_endpoint.pk]
        assert latest.heard_last(kind, MAKER, DAY, DAY + HOUR, 1) == []
        assert latest.measured_at(kind) == DAY + 30 * HOUR

    def test_only_the_newest_rows_are_searched(self, kind, endpoint, other_endpoint, monkeypatch):
        monkeypatch.setattr(latest, "HEARD", 2)
        observe(other_endpoint, (DAY, 1.0))
        observe(endpoint, (DAY + HOUR, 1.0), (DAY + HOUR, 1.0), path=HUMIDITY)

        assert latest.heard_last(kind, TEMPERATURE, DAY, DAY + HOUR, 1) == []


class TestChart:
    @pytest.fixture
    def plotted(self):
        return parse({"reading": f"lwm2m.{TEMPERATURE}"}).plotted

    def test_any_path_can_be_chosen(self, plotted, kind):
        assert (plotted.kind, plotted.reading.name, plotted.name) == (
            kind,
            TEMPERATURE,
            f"lwm2m.{TEMPERATURE}",
        )

    @pytest.mark.parametrize(
        "name", ["lwm2m.", "lwm2m." + "x" * 101, "weatherstation.3303/0/5700", "toaster.a"]
    )
    def test_other_texts_choose_the_first_reading(self, name):
        assert parse({"reading": name}).plotted == parse({}).plotted

    def test_it_has_the_name_and_the_unit_of_the_definition(self, plotted, definition, endpoint):
        observe(endpoint, (timezone.now(), 21.5))

        loaded = Chart(plotted, 900, EVERYBODY).load(timezone.now())

        assert (loaded["reading"], loaded["unit"], loaded["whole"]) == (
            f"Sensor Value {TEMPERATURE}",
            "°C",
            False,
        )
        assert [(one["device"], one["v"]) for one in loaded["series"]] == [("urn:dev:a", [21.5])]

    @pytest.mark.parametrize("path", ["9999/0/1", "no path", "3303/0"])
    def test_a_path_without_a_definition_is_its_own_title(self, path, endpoint, definition):
        plotted = parse({"reading": f"lwm2m.{path}"}).plotted

        loaded = Chart(plotted, 900, EVERYBODY).load(timezone.now())

        assert (loaded["reading"], loaded["unit"], loaded["series"]) == (path, "", [])

    def test_it_shows_one_endpoint_alone(self, plotted, endpoint, other_endpoint):
        for one in (endpoint, other_endpoint):
            observe(one, (timezone.now(), 1.0))

        made = Chart(plotted, 900, EVERYBODY, device_id="urn:dev:a")

        assert [one["device"] for one in made.load(timezone.now())["series"]] == ["urn:dev:a"]

    def test_a_long_range_comes_from_rollups_and_new_values(self, plotted, endpoint):
        hour = (timezone.now() - timedelta(days=2)).replace(minute=0, second=0, microsecond=0)
        observe(endpoint, (hour, 1.0))
        roll_up()
        observe(endpoint, (hour, 3.0))

        loaded = Chart(plotted, 7 * 86_400, EVERYBODY).load(timezone.now())

        assert loaded["step"] == 3_600
        assert [(one["low"], one["v"], one["high"]) for one in loaded["series"]] == [([1.0], [2.0], [3.0])]

    def test_new_values_of_the_path_are_added(self, plotted, kind, endpoint):
        observe(endpoint, (timezone.now(), 1.0))
        made, tail = Chart(plotted, 900, EVERYBODY), Tail(kind)
        made.load(timezone.now())
        observe(endpoint, (timezone.now(), 2.0))
        observe(endpoint, (timezone.now(), 50.0), path=HUMIDITY)

        stored = tail.look(None, TEMPERATURE)

        assert [(row[1], row[3]) for row in stored] == [(endpoint.pk, 2.0)]
        assert made.add(stored, timezone.now())[0]["v"] == [2.0]
        assert tail.look(None, TEMPERATURE) == []

    def test_many_new_values_come_in_several_looks(self, kind, endpoint, monkeypatch):
        monkeypatch.setattr(chart, "MAX_NEWS", 2)
        tail = Tail(kind)
        observe(endpoint, *[(DAY + n * MINUTE, float(n)) for n in range(3)])

        looks = [tail.look(None, TEMPERATURE) for _ in range(3)]

        assert [[row[3] for row in look] for look in looks] == [[0.0, 1.0], [2.0], []]

    def test_an_open_page_shows_them(self, endpoint):
        watch = live.Watch(parse({"reading": f"lwm2m.{TEMPERATURE}"}), EVERYBODY)
        watch.start()
        send(endpoint, [{"n": "/3303/0/5700", "v": 5}], at=timezone.now())

        news = watch.look()

        assert [one["v"] for one in news["points"]] == [[5.0]]
        assert KEY in news["rows"]

    def test_the_overview_lists_the_chosen_path(self, client, endpoint):
        client.force_login(User.objects.create_superuser("root"))

        page = client.get(reverse("devicehub:overview"), {"reading": f"lwm2m.{TEMPERATURE}"}).content.decode()

        assert f'<option value="lwm2m.{TEMPERATURE}" selected>' in page
