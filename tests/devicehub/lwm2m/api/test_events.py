"""The REST API: events of endpoints with their values, and the filters that pages have too."""

from datetime import UTC, datetime, timedelta

import pytest

from devicehub.api import callers
from devicehub.lwm2m import events as own_events
from devicehub.lwm2m.api import events, values
from devicehub.lwm2m.models import Endpoint, Event, EventResource, Resource, ResourceValue
from devicehub.models import digest_api_key
from rig.endpoints import endpoint as endpoint
from rig.endpoints import other_endpoint as other_endpoint
from rig.messages import STORED, send
from rig.programs import Program, person, program

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
URL = "/api/lwm2m/events/"


@pytest.fixture
def reader():
    """Return a program that reads events."""
    return program(person("ada"), ["telemetry:read"])


def happened(endpoint, count=1, kind="notification", at=NOON, paths=("3303/0/5700",)):
    """Store *count* events, each with one value of each path."""
    for path in paths:
        ids = dict(
            zip(("object_id", "object_instance", "resource_id"), map(int, path.split("/")), strict=True)
        )
        Resource.objects.get_or_create(
            device=endpoint, path=path, defaults={**ids, "type": "Float", "timestamp": at, "received_at": at}
        )
    made = Event.objects.bulk_create(
        Event(device=endpoint, type=kind, timestamp=at + timedelta(seconds=number), received_at=at)
        for number in range(count)
    )
    held = {"type": "Float", "number": 1.5}
    if kind == "alarm":
        EventResource.objects.bulk_create(
            EventResource(device=endpoint, event=event, path=path, timestamp=event.timestamp, **held)
            for event in made
            for path in paths
        )
    else:
        ResourceValue.objects.bulk_create(
            ResourceValue(
                device=endpoint, event=event, path=path, timestamp=event.timestamp, received_at=at, **held
            )
            for event in made
            for path in paths
        )
    return made


def test_events_come_with_all_their_values(reader, endpoint):
    """A message, a registration and an event of a project, from the pipeline to the answer."""
    pack = [
        {"bn": "/3303/0/", "n": "5700", "u": "Cel", "v": 21.5, "t": NOON.timestamp()},
        {"n": "5701", "vs": "Cel", "t": NOON.timestamp() - 5},
    ]
    assert send(endpoint, {"registration": {"lifetime": 60, "links": "</3303/0>"}}, "status") == STORED
    assert send(endpoint, pack) == STORED
    own_events.record("alarm", endpoint, {"3303/0/5700": 99.5}, timestamp=NOON + timedelta(hours=1))

    found = {one["type"]: one for one in reader.get(URL).json()["results"]}

    assert found["registration"]["detail"] == "registered"
    assert found["registration"]["values"] == []
    event = Event.objects.exclude(type__in=["alarm", "registration"]).get()
    assert found[event.type] | {"received_at": ""} == {
        "id": event.pk,
        "endpoint": "urn:dev:a",
        "device_id": "urn:dev:a",
        "type": event.type,
        "detail": "",
        "timestamp": "2026-03-01T12:00:00Z",
        "earliest": "2026-03-01T11:59:55Z",
        "received_at": "",
        "values": [
            {
                "path": f"/3303/0/{resource}",
                "object": "Temperature",
                "name": name,
                "type": kind,
                "unit": unit,
                "value": value,
                "timestamp": moment,
            }
            for resource, name, kind, unit, value, moment in (
                (5700, "Sensor Value", "Float", "Cel", 21.5, "2026-03-01T12:00:00Z"),
                (5701, "Sensor Units", "String", "", "Cel", "2026-03-01T11:59:55Z"),
            )
        ],
        "has_more_values": False,
    }
    assert found["alarm"]["values"][0]["value"] == 99.5
    for one in found.values():
        assert reader.get(f"{URL}{one['id']}/").json() == one


def test_filters_select_by_type_endpoint_and_time(reader, endpoint, other_endpoint):
    happened(endpoint, 2)
    happened(endpoint, kind="alarm", at=NOON + timedelta(hours=1))
    happened(other_endpoint, 3)
    named = Endpoint.objects.create(device_id="T-r-7", endpoint_name="Tür 7")
    happened(named)

    def count(**params):
        return len(reader.get(URL, **params).json()["results"])

    assert [count(type=kind) for kind in ("notification", "alarm", "other")] == [6, 1, 0]
    assert [count(endpoint=name) for name in ("urn:dev:a", "urn:dev:b", "urn:dev", "Tür 7", "T-r-7")] == [
        3,
        3,
        0,
        1,
        1,
    ]
    assert count(type="alarm", endpoint="urn:dev:b") == 0
    later = "2026-03-01T12:00:01Z"
    assert (count(**{"from": later}), count(to=later), count(**{"from": later, "to": later})) == (4, 3, 0)


def test_events_come_in_pages_without_a_gap(reader, endpoint, other_endpoint):
    """Events of one time too."""
    made = {event.pk for event in (*happened(endpoint, 3), *happened(other_endpoint, 3))}
    pages, url = [], f"{URL}?limit=4&fields=id"
    while url:
        page = reader.get(url).json()
        pages.append([one["id"] for one in page["results"]])
        url, before = page["next"], page["previous"]
    assert (list(map(len, pages)), {pk for page in pages for pk in page}) == ([4, 2], made)
    assert [one["id"] for one in reader.get(before).json()["results"]] == pages[0]


def test_a_page_with_many_or_long_values_ends_early(reader, endpoint, monkeypatch):
    """A list cuts the values of an event, and one event has more of them."""
    monkeypatch.setattr(events, "FIRST", 2)
    monkeypatch.setattr(events, "MOST", 5)
    happened(endpoint, 3, paths=[f"3303/{number}/5700" for number in range(4)])
    page = reader.get(URL).json()
    assert [(len(one["values"]), one["has_more_values"]) for one in page["results"]] == [(2, True)]
    assert page["next"]
    one = reader.get(f"{URL}{page['results'][0]['id']}/").json()
    assert (len(one["values"]), one["has_more_values"]) == (4, False)
    monkeypatch.setattr(events, "MOST", 100)
    monkeypatch.setattr(values, "MOST_SIZE", 3)
    ResourceValue.objects.update(text="ab", type="String")
    assert len(reader.get(URL).json()["results"]) == 1


@pytest.mark.parametrize(
    "params", [{"type": "x" * 65}, {"from": "now"}, {"endpoint": "a\x00"}, {"since": "24h"}]
)
def test_a_wrong_parameter_is_400(reader, params):
    assert reader.get(URL, **params).status_code == 400


def test_events_of_other_sites_and_without_the_scope_are_not_read(endpoint):
    """A device reads none of them, not even its own."""
    [event] = happened(endpoint)
    southerner = program(person("southerner", sites=["south"]))
    assert southerner.get(URL).json()["results"] == []
    assert southerner.get(URL, endpoint="urn:dev:a").json()["results"] == []
    assert southerner.get(f"{URL}{event.pk}/").status_code == 404
    endpoint.api_key = digest_api_key("a" * 64)
    endpoint.save(update_fields=["api_key"])
    registry, nameless = program(person("ada"), ["devices:read"]), program(person("nobody", role=""))
    for url in (URL, f"{URL}{event.pk}/"):
        assert [who.get(url).status_code for who in (registry, nameless, Program("a" * 64))] == [
            403,
            403,
            403,
        ]
        assert Program().get(url).status_code == 401
    assert southerner.get(f"{URL}{10**30}/").status_code == 404
    callers._failures._found.clear()


def test_as_many_queries_for_many_rows_as_for_few(endpoint, other_endpoint, django_assert_max_num_queries):
    """Also of events of both sorts at several endpoints."""
    ada = person("ada", sites=["north"])
    reader, counts = program(ada), set()
    Endpoint.objects.update(site="north")
    happened(endpoint)
    reader.get(URL)  # The use of a key is noted once a minute, and definitions are read once.
    for count in (5, 150):
        for one in (endpoint, other_endpoint):
            happened(one, count, paths=("3303/0/5700", "3/0/7"))
            happened(one, count, kind="alarm")
        for url in (f"{URL}?limit=1000", f"{URL}?limit=1000&endpoint=urn:dev:a"):
            with django_assert_max_num_queries(12) as queries:
                assert reader.get(url).status_code == 200
            counts.add((url, len(queries)))
    assert len(counts) == 2, counts
