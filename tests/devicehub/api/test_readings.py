"""The values of devices: the newest ones, and those of a time in pages of rows, hours or days."""

from datetime import timedelta
from unittest.mock import ANY

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from devicehub import roles
from devicehub.api.paging import Cursor
from devicehub.history import latest, pages
from devicehub.lwm2m.models import Endpoint, Resource
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.endpoints import HUMIDITY, MAKER, TEMPERATURE, observe
from rig.programs import person, program
from rig.telemetry import DAY, HOUR, measure, roll_up

pytestmark = pytest.mark.django_db

STATION = "/api/devices/weatherstation/STATION-001"
MINUTE = timedelta(minutes=1)
LAST = "9999-12-31T23:59:59Z"


@pytest.fixture
def station():
    """Create our station, at the site north."""
    return WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="s", site="north")


@pytest.fixture
def neighbour():
    """Create the station of another site."""
    return WeatherStationDevice.objects.create(device_id="STATION-002", mqtt_username="n", site="south")


@pytest.fixture
def caller():
    """Return a program that may read values, of a viewer."""
    return program(person("vera", roles.VIEWER), ["telemetry:read"])


def fill(station, number, step=MINUTE):
    """Store *number* readings, one in each *step*."""
    return measure(station, *[(DAY + n * step, float(n)) for n in range(number)])


def followed(caller, path, **params):
    """Return the rows of all pages, and the number of pages."""
    answer = caller.get(path, **params).json()
    rows, count = list(answer["results"]), 1
    while answer["next"]:
        answer = caller.get(answer["next"]).json()
        rows += answer["results"]
        count += 1
    return rows, count


class TestLatest:
    def test_each_reading_has_its_newest_value_unit_and_time(self, caller, station, neighbour):
        """A reading that was never measured is missing."""
        measure(station, (DAY, 1.5), (DAY + HOUR, 2.5))
        WeatherStationReading.objects.create(device=station, timestamp=DAY, humidity=40.0)
        measure(neighbour, (DAY + 2 * HOUR, 99.0))
        assert caller.get(f"{STATION}/latest/").json() == {
            "temperature": {"value": 2.5, "unit": "Cel", "timestamp": "2026-03-02T01:00:00Z"},
            "humidity": {"value": 40.0, "unit": "%RH", "timestamp": "2026-03-02T00:00:00Z"},
        }
        assert list(caller.get(f"{STATION}/latest/", fields="humidity").json()) == ["humidity"]
        assert caller.get(f"{STATION}/latest/", fields="wind").status_code == 400

    def test_an_endpoint_has_its_resources(self, caller):
        """Each path of its history is a name."""
        endpoint = Endpoint.objects.create(device_id="urn:dev:a")
        observe(endpoint, (DAY, 21.5))
        Resource.objects.create(
            device=endpoint,
            path=TEMPERATURE,
            type="Float",
            number=21.5,
            object_id=3303,
            object_instance=0,
            resource_id=5700,
            timestamp=DAY,
            received_at=DAY,
        )
        refused = caller.get("/api/devices/lwm2m/urn:dev:a/latest/", fields="/3303/0/5700").json()
        assert refused["detail"] == "Leave out the / in front: 3303/0/5700."
        found = caller.get("/api/devices/lwm2m/urn:dev:a/latest/").json()
        assert found[TEMPERATURE]["value"] == 21.5
        assert found[TEMPERATURE]["timestamp"] == "2026-03-02T00:00:00Z"

    def test_values_that_are_too_heavy_together_are_read_by_name(self, caller, monkeypatch):
        monkeypatch.setattr(latest, "HEAVIEST", 30)
        endpoint = Endpoint.objects.create(device_id="urn:dev:a")
        for resource, held in ((0, {"text": "x" * 20}), (1, {"opaque": b"x" * 20})):
            observe(endpoint, (DAY, 1), path=f"3/0/{resource}")
            Resource.objects.create(
                device=endpoint, path=f"3/0/{resource}", type="String" if "text" in held else "Opaque",
                object_id=3, object_instance=0, resource_id=resource, timestamp=DAY, received_at=DAY, **held,
            )  # fmt: skip
        answer = caller.get("/api/devices/lwm2m/urn:dev:a/latest/")
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
        assert list(caller.get("/api/devices/lwm2m/urn:dev:a/latest/", fields="3/0/1").json()) == ["3/0/1"]


class TestRows:
    def test_rows_have_times_values_and_units(self, caller, station, neighbour):
        """A value that was not measured is null; other devices are left out."""
        [row] = measure(station, (DAY, -1.5))
        measure(neighbour, (DAY, 99.0))
        answer = caller.get(f"{STATION}/readings/").json()
        received = row.received_at.isoformat().replace("+00:00", "Z")
        assert answer == {
            "next": None,
            "previous": None,
            "units": {"temperature": "Cel", "humidity": "%RH", "rainfall": "mm"},
            "results": [
                {
                    "timestamp": "2026-03-02T00:00:00Z",
                    "received_at": received,
                    "values": {"temperature": -1.5, "humidity": None, "rainfall": None},
                }
            ],
        }

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_pages_lead_through_all_rows_and_back(self, caller, station, order):
        """Also where many rows have one time, and where rows are added meanwhile."""
        fill(station, 5)
        measure(station, *[(DAY + 2 * MINUTE, 100.0 + n) for n in range(4)])
        path, params = f"{STATION}/readings/", {"limit": 2, "order": order, "fields": "temperature"}
        rows, count = followed(caller, path, **params)
        values = [row["values"]["temperature"] for row in rows]
        expected = [0.0, 1.0, 2.0, 100.0, 101.0, 102.0, 103.0, 3.0, 4.0]
        assert (values, count) == (expected if order == "asc" else expected[::-1], 5)
        first = caller.get(path, **params).json()
        second = caller.get(first["next"]).json()
        third = caller.get(second["next"]).json()
        assert caller.get(third["previous"]).json()["results"] == second["results"]
        assert caller.get(second["previous"]).json()["results"] == first["results"]
        assert caller.get(second["previous"]).json()["previous"] is None

    def test_a_range_begins_with_its_first_time_and_ends_before_its_last(self, caller, station):
        """Times may have any zone."""
        fill(station, 5)
        span = {"from": "2026-03-02T01:01:00+01:00", "to": "2026-03-02T00:03:00Z"}
        rows, _ = followed(caller, f"{STATION}/readings/", **span)
        assert [row["values"]["temperature"] for row in rows] == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("params", "field"),
        [
            ({"from": "2026-03-02T00:00:00Z", "to": "2026-03-02T00:00:00Z"}, "to"),
            ({"from": "yesterday"}, "from"),
            ({"from": "2026-03-02T00:00:00"}, "from"),
            ({"fields": "wind"}, "fields"),
            ({"fields": "a" * 101}, "fields"),
            ({"interval": "minute"}, "interval"),
            ({"order": "up"}, "order"),
            ({"limit": "1001"}, "limit"),
        ],
    )
    def test_a_wrong_value_is_named(self, caller, station, params, field):
        """It is 400."""
        answer = caller.get(f"{STATION}/readings/", **params)
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["errors"]] == [field]

    @pytest.mark.parametrize("interval", ["raw", "hour"])
    @pytest.mark.parametrize("cursor", ["x", "WzAsMSwxXQ", "WzAsIjIwMjYiLDFd", "WzAsIngiLCJ5Il0"])
    def test_a_wrong_cursor_is_refused(self, caller, station, interval, cursor):
        """It is 400 with a type of its own, for any content."""
        answer = caller.get(f"{STATION}/readings/", cursor=cursor, interval=interval)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-cursor")

    @pytest.mark.parametrize("interval", ["raw", "hour", "day"])
    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_the_last_hour_of_the_calendar_is_one_as_well(self, caller, station, interval, order):
        """A range may end in it, and a cursor may name it."""
        fill(station, 2)
        found = caller.get(f"{STATION}/readings/", to=LAST, interval=interval, order=order)
        assert (found.status_code, len(found.json()["results"])) == (200, 2 if interval == "raw" else 1)
        before = Cursor((LAST, 1 if interval == "raw" else "temperature"), backward=True)
        assert caller.get(f"{STATION}/readings/", cursor=str(before), interval=interval).json() == (
            caller.get(f"{STATION}/readings/", interval=interval).json() | {"next": ANY}
        )

    def test_the_number_of_queries_is_the_same_for_many_rows(self, caller, station):
        """For rows, hours and days, and within the limit of the API."""
        caller.get(f"{STATION}/latest/")  # Which notes the use of the key, once in a minute.
        counts = {}
        for number in (10, 1_000):
            fill(station, number)
            for interval in ("raw", "hour", "day"):
                with CaptureQueriesContext(connection) as made:
                    answer = caller.get(f"{STATION}/readings/", limit=1000, interval=interval)
                assert answer.status_code == 200
                counts.setdefault(interval, []).append(len(made))
        assert all(few == many <= 12 for few, many in counts.values()), counts

    def test_all_types_are_exact(self, probe_kind, django_user_model):
        """64-bit integers keep their digits, bytes are base64, JSON is as it was sent."""
        device = probe_kind.device_model.objects.create(device_id="P-1", mqtt_username="p")
        values = {
            "amount": 0.1,
            "count": 2**63 - 1,
            "wet": True,
            "label": "=1+1",
            "extra": {"a": [2**63 + 1, None, "ü"]},
            "raw": b"\x00\xff",
        }
        probe_kind.reading_model.objects.create(device=device, timestamp=DAY, **values)
        root = program(django_user_model.objects.create(username="root", is_superuser=True))
        shown = values | {"raw": "AP8="}
        [row] = root.get("/api/devices/sampler/P-1/readings/").json()["results"]
        assert row["values"] == shown
        newest = root.get("/api/devices/sampler/P-1/latest/").json()
        assert {name: one["value"] for name, one in newest.items()} == shown
        refused = root.get("/api/devices/sampler/P-1/readings/", interval="day", fields="label")
        assert "interval=raw" in refused.json()["detail"]

    def test_a_page_of_heavy_rows_is_shorter(self, caller, monkeypatch):
        """The next page goes on where it ends."""
        endpoint = Endpoint.objects.create(device_id="urn:dev:a")
        observe(endpoint, *[(DAY + n * MINUTE, "x" * 100) for n in range(5)], path=MAKER)
        monkeypatch.setattr(pages, "HEAVIEST", 250)
        path = "/api/devices/lwm2m/urn:dev:a/readings/"
        rows, count = followed(caller, path, fields=MAKER, limit=4)
        assert (len(rows), count) == (5, 3)
        assert len(followed(caller, path, fields=MAKER, limit=4, order="desc")[0]) == 5

    def test_an_endpoint_needs_names_and_merges_them_by_time(self, caller):
        """Each row has one value, with all its digits."""
        endpoint = Endpoint.objects.create(device_id="urn:dev:a")
        observe(endpoint, (DAY, 2**63 - 1), (DAY + 2 * MINUTE, 3))
        observe(endpoint, (DAY + MINUTE, 40.5), path=HUMIDITY)
        observe(endpoint, (DAY + MINUTE, "Acme"), path=MAKER)
        path = "/api/devices/lwm2m/urn:dev:a/readings/"
        assert caller.get(path).json()["errors"][0]["field"] == "fields"
        rows, count = followed(caller, path, fields=f"{TEMPERATURE},{HUMIDITY}", limit=1)
        assert count == 3
        assert [row["values"] for row in rows] == [
            {TEMPERATURE: 2**63 - 1},
            {HUMIDITY: 40.5},
            {TEMPERATURE: 3},
        ]
        [row] = caller.get(path, fields=MAKER).json()["results"]
        assert (row["values"], row["timestamp"]) == ({MAKER: "Acme"}, "2026-03-02T00:01:00Z")
        many = ",".join(f"1/0/{n}" for n in range(pages.MOST_NAMES + 1))
        assert caller.get(path, fields=many).status_code == 400


class TestBuckets:
    def test_hours_and_days_have_figures_also_of_rows_that_are_not_rolled_up(self, caller, station):
        """The same before, after and between two roll-ups."""
        fill(station, 120, 15 * MINUTE)
        path = f"{STATION}/readings/"
        before = caller.get(path, interval="hour").json()
        assert before["results"][0] == {
            "start": "2026-03-02T00:00:00Z",
            "name": "temperature",
            "min": 0.0,
            "mean": 1.5,
            "max": 3.0,
            "count": 4,
        }
        roll_up()
        assert caller.get(path, interval="hour").json() == before
        measure(station, (DAY, 9.0))
        [first, *_] = caller.get(path, interval="day").json()["results"]
        assert (first["min"], first["max"], first["count"]) == (0.0, 95.0, 97)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("rolled_up", [0, 1, 2])
    def test_pages_lead_through_all_buckets(self, caller, station, order, rolled_up):
        """By time and name, wherever the border of the rollups is."""
        if rolled_up:
            fill(station, 4, HOUR)
            roll_up()
        for n in range(2, 7):
            WeatherStationReading.objects.create(
                device=station, timestamp=DAY + n * HOUR, humidity=float(n), temperature=float(n)
            )
        if rolled_up == 2:
            roll_up()
        path = f"{STATION}/readings/"
        rows, count = followed(caller, path, interval="hour", limit=3, order=order)
        whole = caller.get(path, interval="hour", limit=100, order=order).json()["results"]
        assert rows == whole
        places = [(row["start"], row["name"]) for row in rows]
        assert places == sorted(set(places), reverse=order == "desc")
        assert (len(rows), count) == ((12, 4) if rolled_up else (10, 4))
        total = sum(row["count"] for row in rows)
        assert total == (14 if rolled_up else 10)
        second = caller.get(caller.get(path, interval="hour", limit=3, order=order).json()["next"]).json()
        assert second["results"] == rows[3:6]
        assert caller.get(second["previous"]).json()["results"] == rows[:3]

    def test_the_bucket_of_the_beginning_is_whole(self, caller, station):
        """One that begins at the end is left out."""
        fill(station, 12, 15 * MINUTE)
        span = {"from": "2026-03-02T01:30:00Z", "to": "2026-03-02T02:00:00Z"}
        for _ in range(2):
            rows, _ = followed(caller, f"{STATION}/readings/", interval="hour", **span)
            assert [(row["start"], row["count"]) for row in rows] == [("2026-03-02T01:00:00Z", 4)]
            roll_up()

    def test_an_endpoint_has_buckets_by_path(self, caller):
        """Of the paths that are named."""
        endpoint = Endpoint.objects.create(device_id="urn:dev:a")
        observe(endpoint, (DAY, 1.0), (DAY + MINUTE, 3.0))
        observe(endpoint, (DAY, 40.0), path=HUMIDITY)
        path = "/api/devices/lwm2m/urn:dev:a/readings/"
        for _ in range(2):
            rows, _ = followed(caller, path, interval="hour", fields=f"{TEMPERATURE},{HUMIDITY}", limit=1)
            assert [(row["name"], row["mean"]) for row in rows] == [(TEMPERATURE, 2.0), (HUMIDITY, 40.0)]
            roll_up()


class TestRights:
    @pytest.mark.parametrize("what", ["latest", "readings"])
    def test_a_foreign_device_is_not_found(self, station, neighbour, what):
        """Neither one of another site, nor of an unknown type or id."""
        north = program(person("nora", roles.VIEWER, sites=["north"]), ["telemetry:read"])
        assert north.get(f"{STATION}/{what}/").status_code == 200
        for device in ("weatherstation/STATION-002", "weatherstation/X", "toaster/X", "lwm2m/X"):
            assert north.get(f"/api/devices/{device}/{what}/").status_code == 404

    @pytest.mark.parametrize("what", ["latest", "readings"])
    def test_the_scope_and_the_permission_are_needed(self, station, what):
        """Both are 403."""
        other = program(person("vera", roles.VIEWER), ["devices:read"])
        assert other.get(f"{STATION}/{what}/").status_code == 403
        nobody = program(person("nils", ""), ["telemetry:read"])
        assert nobody.get(f"{STATION}/{what}/").status_code == 403
