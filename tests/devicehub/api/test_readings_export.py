"""The export of readings: complete, in order, exact or harmless, limited to the devices of the caller, and ended."""

import asyncio
import csv
import io
import json
import threading
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext

from devicehub import api_keys, roles
from devicehub.api import streaming
from devicehub.history import export
from devicehub.history.pages import Range
from devicehub.kinds.registry import registry
from devicehub.lwm2m.models import Endpoint
from fleet.models import WeatherStationDevice
from rig.endpoints import HUMIDITY, MAKER, TEMPERATURE, observe
from rig.programs import person, program
from rig.telemetry import DAY, HOUR, measure

PATH = "/api/readings/export/"
MINUTE = timedelta(minutes=1)


def stations(*sites):
    """Create a station at each of *sites*."""
    return [
        WeatherStationDevice.objects.create(device_id=f"STATION-{n:03}", mqtt_username=f"s{n}", site=site)
        for n, site in enumerate(sites, 1)
    ]


def exported(caller, **params):
    """Return the rows of an export of weather stations: lists of cells, or objects."""
    answer = caller.get(PATH, **{"type": "weatherstation"} | params)
    assert answer.status_code == 200, answer.json()
    text = b"".join(answer.streaming_content).decode()  # The test client closes it at its end.
    assert not export._open
    if params.get("as") == "ndjson":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.reader(io.StringIO(text)))


def temperatures(rows):
    """Return the device and the temperature of each row of CSV."""
    return [(row[0], row[3]) for row in rows[1:]]


@pytest.fixture
def caller(db):
    """Return a program that may read values, of a viewer."""
    return program(person("vera", roles.VIEWER), ["telemetry:read"])


class TestContent:
    def test_rows_of_all_devices_come_in_the_order_of_time(self, caller):
        """CSV has a head, and negative numbers as they are."""
        one, other = stations("", "")
        [late] = measure(one, (DAY + HOUR, -2.5))
        measure(other, (DAY, 1.0))
        rows = exported(caller)
        assert rows[0] == ["device_id", "timestamp", "received_at", "temperature", "humidity", "rainfall"]
        received = late.received_at.isoformat().replace("+00:00", "Z")
        assert rows[2] == ["STATION-001", "2026-03-02T01:00:00Z", received, "-2.5", "", ""]
        assert temperatures(rows) == [("STATION-002", "1.0"), ("STATION-001", "-2.5")]

    def test_units_come_with_the_names_if_they_are_wanted(self, caller):
        """In the head of CSV, and in each line of JSON; those of endpoints differ by device."""
        measure(*stations(""), (DAY, 1.0))
        head, row = exported(caller, units="true")
        assert head[3:] == ["temperature [Cel]", "humidity [%RH]", "rainfall [mm]"]
        assert row[3] == "1.0"
        [line] = exported(caller, units="true", **{"as": "ndjson"})
        assert line["units"] == {"temperature": "Cel", "humidity": "%RH", "rainfall": "mm"}
        assert line.keys() == {"device_id", "timestamp", "received_at", "values", "units"}
        answer = caller.get(PATH, type="lwm2m", units="true")
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "units")

    @pytest.mark.parametrize("form", ["csv", "ndjson"])
    @pytest.mark.parametrize("at_once", [1, 2, 3, 100])
    @pytest.mark.parametrize("has_cursors", [True, False])
    def test_no_row_is_missing_or_repeated_between_portions(
        self, caller, monkeypatch, form, at_once, has_cursors
    ):
        """Also where many rows have one time, and behind a pool of connections that allows no cursors."""
        monkeypatch.setattr(export, "AT_ONCE", at_once)
        monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", not has_cursors)
        [one] = stations("")
        measure(one, *[(DAY + n // 3 * MINUTE, float(n)) for n in range(10)])
        rows = exported(caller, **{"as": form})
        values = (
            [row["values"]["temperature"] for row in rows]
            if form == "ndjson"
            else [float(row[3]) for row in rows[1:]]
        )
        assert values == [float(n) for n in range(10)]

    def test_a_range_and_a_device_are_selected(self, caller):
        """The end of the range is excluded."""
        one, other = stations("", "")
        measure(one, *[(DAY + n * MINUTE, float(n)) for n in range(5)])
        measure(other, (DAY + MINUTE, 99.0))
        span = {"from": "2026-03-02T00:01:00Z", "to": "2026-03-02T00:03:00Z"}
        assert [value for _, value in temperatures(exported(caller, **span))] == ["1.0", "99.0", "2.0"]
        assert temperatures(exported(caller, device="STATION-002")) == [("STATION-002", "99.0")]

    @pytest.mark.parametrize("form", ["csv", "ndjson"])
    def test_values_of_all_types(self, probe_kind, django_user_model, form):
        """JSON is exact. In CSV texts begin with no formula, and numbers are numbers."""
        device = probe_kind.device_model.objects.create(device_id="-1", mqtt_username="p")
        values = {
            "amount": -0.1,
            "count": -(2**63),
            "wet": False,
            "label": "=1+1",
            "extra": {"a": [2**63 + 1, None, "ü"]},
            "raw": b"\xfb\xff",
        }
        probe_kind.reading_model.objects.create(device=device, timestamp=DAY, **values)
        probe_kind.reading_model.objects.create(device=device, timestamp=DAY + HOUR)
        root = program(django_user_model.objects.create(username="root", is_superuser=True))
        rows = exported(root, **{"type": "sampler", "as": form})
        if form == "ndjson":
            assert rows[0]["values"] == values | {"raw": "+/8="}
            assert (rows[0]["device_id"], rows[0]["timestamp"]) == ("-1", "2026-03-02T00:00:00Z")
            assert set(rows[1]["values"].values()) == {None}
        else:
            assert (rows[1][0], rows[1][3:7]) == ("'-1", ["-0.1", str(-(2**63)), "false", "'=1+1"])
            assert (json.loads(rows[1][7]), rows[1][8]) == (values["extra"], "'+/8=")
            assert rows[2][3:] == [""] * 6

    def test_endpoints_have_a_row_for_each_value(self, caller):
        """With all its digits."""
        endpoint = Endpoint.objects.create(device_id="urn:dev:a")
        observe(endpoint, (DAY, 2**63 - 1), (DAY + HOUR, -3))
        observe(endpoint, (DAY + MINUTE, "=cmd"), path=MAKER)
        observe(endpoint, (DAY + MINUTE, True), path=HUMIDITY)
        rows = exported(caller, type="lwm2m")
        assert rows[0] == ["device_id", "timestamp", "received_at", "name", "value"]
        assert [row[3:] for row in rows[1:]] == [
            [TEMPERATURE, str(2**63 - 1)],
            [MAKER, "'=cmd"],
            [HUMIDITY, "true"],
            [TEMPERATURE, "-3"],
        ]
        values = [row["values"] for row in exported(caller, **{"type": "lwm2m", "as": "ndjson"})]
        assert values == [{TEMPERATURE: 2**63 - 1}, {MAKER: "=cmd"}, {HUMIDITY: True}, {TEMPERATURE: -3}]


@pytest.mark.django_db
class TestRights:
    def test_a_person_of_a_site_gets_the_devices_of_it(self):
        """So does a key of a site; a person without a site gets none."""
        for station in stations("north", "south"):
            measure(station, (DAY, 1.0))
        nora = person("nora", roles.VIEWER, sites=["north"])
        assert temperatures(exported(program(nora))) == [("STATION-001", "1.0")]
        ada = person("ada")
        assert temperatures(exported(program(ada, site="south"))) == [("STATION-002", "1.0")]
        assert len(exported(program(ada, name="all"))) == 3
        nowhere = person("nowhere", roles.VIEWER, sites=[])
        assert len(exported(program(nowhere))) == 1
        assert program(nora).get(PATH, type="weatherstation", device="STATION-002").status_code == 404

    def test_the_scope_and_the_permission_are_needed(self):
        """Both are 403, and nothing runs."""
        vera = person("vera", roles.VIEWER)
        assert program(vera, ["devices:read"]).get(PATH, type="weatherstation").status_code == 403
        assert program(person("nils", "")).get(PATH, type="weatherstation").status_code == 403
        assert not export._open

    @pytest.mark.parametrize(
        ("params", "field"),
        [
            ({}, "type"),
            ({"type": "toaster"}, "type"),
            ({"type": "weatherstation", "as": "xlsx"}, "as"),
            ({"type": "weatherstation", "from": "x"}, "from"),
            ({"type": "weatherstation", "from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, "to"),
        ],
    )
    def test_a_wrong_value_is_named(self, caller, params, field):
        """It is a problem in JSON, also for a client that accepts CSV alone."""
        answer = caller.client.get(PATH, params, headers={**caller._headers, "Accept": "text/csv"})
        assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
        assert [error["field"] for error in answer.json()["errors"]] == [field]


class TestRunning:
    def test_the_number_of_exports_is_bounded(self, caller, monkeypatch):
        """One more is 503 with Retry-After; the first one goes on."""
        monkeypatch.setattr(export, "MOST", 1)
        [one] = stations("")
        measure(one, (DAY, 1.0))
        first = caller.get(PATH, type="weatherstation")
        refused = caller.get(PATH, type="weatherstation")
        assert (refused.status_code, refused["Retry-After"]) == (503, "30")
        assert len(list(first.streaming_content)) == 2
        assert len(exported(caller)) == 2

    def test_one_caller_leaves_places_to_others(self, caller, monkeypatch):
        """One more of the same caller is 429 with Retry-After."""
        monkeypatch.setattr(export, "MOST_OF_ONE", 1)
        first = caller.get(PATH, type="weatherstation")
        refused = caller.get(PATH, type="weatherstation")
        assert (refused.status_code, refused["Retry-After"]) == (429, "30")
        other = program(person("otto", roles.VIEWER)).get(PATH, type="weatherstation")
        assert [len(list(answer.streaming_content)) for answer in (first, other)] == [1, 1]
        assert exported(caller)

    def test_an_export_that_never_begins_takes_no_place_for_long(self, caller, monkeypatch):
        """Its client went away while a thread made the answer, and nothing closes that."""
        monkeypatch.setattr(export, "MOST", 1)
        monkeypatch.setattr(export, "BEGINNING", 0.0)
        left = caller.get(PATH, type="weatherstation")
        begun = caller.get(PATH, type="weatherstation")
        assert next(iter(begun.streaming_content))
        assert caller.get(PATH, type="weatherstation").status_code == 503
        for answer in (left, begun):
            list(answer.streaming_content)
        assert not export._open

    def test_a_request_for_the_head_runs_nothing(self, caller):
        """Its headers are those of the export."""
        answer = caller.client.head(PATH, {"type": "weatherstation"}, headers=caller._headers)
        assert (answer.status_code, answer["Content-Type"]) == (200, "text/csv; charset=utf-8")
        assert not export._open

    def test_the_database_is_read_in_portions(self, caller, monkeypatch):
        """The first part is there before the rest is read, and closing ends the query."""
        monkeypatch.setattr(export, "AT_ONCE", 2)
        [one] = stations("")
        measure(one, *[(DAY + n * MINUTE, float(n)) for n in range(9)])
        kind = registry.get("weatherstation")
        made = export.Export(kind, kind.device_model.objects.all(), "csv", Range())
        with CaptureQueriesContext(connection) as queries:
            parts = [next(made) for _ in range(3)]
            made.close()
        assert [len(part.splitlines()) for part in parts] == [1, 2, 2]
        assert len(queries) <= 6
        assert next(made, None) is None

    @pytest.mark.django_db(transaction=True)
    def test_it_is_streamed_under_asgi(self):
        """By a thread of its own, which ends with the answer and closes its connection."""
        [one] = stations("")
        measure(one, *[(DAY + n * MINUTE, float(n)) for n in range(5)])
        secret = api_keys.create(person("vera"), "key", ["telemetry:read"]).secret

        async def read(most):
            answer = await AsyncClient().get(
                f"{PATH}?type=weatherstation", headers={"Authorization": f"Api-Key {secret}"}
            )
            parts = []
            async for part in answer.streaming_content:
                parts.append(part)
                if len(parts) == most:
                    break
            answer.close()
            await sync_to_async(connections.close_all)()  # Those of the request.
            return b"".join(parts)

        assert len(asyncio.run(read(0)).splitlines()) == 6
        assert len(asyncio.run(read(1)).splitlines()) == 1
        for thread in [thread for thread in threading.enumerate() if thread.name.startswith("export")]:
            thread.join(5)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("export")]
        assert not export._open

    def test_the_event_loop_waits_for_no_database(self):
        """A query is interrupted by another connection, and that may take long."""
        begun, go_on, ended = threading.Event(), threading.Event(), []

        class Stuck:
            def __iter__(self):
                return self

            def __next__(self):
                go_on.wait(10)
                return b""

            def interrupt(self):
                begun.set()
                ended.append(go_on.wait(2))

            def close(self):
                pass

        async def leave():
            stream = streaming.Stream(Stuck())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.01)
            assert begun.wait(10)
            assert ended == []
            go_on.set()

        asyncio.run(leave())
