"""The REST API: latest values and history of an endpoint, of every type and exact, in pages and by path."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from devicehub.api import callers
from devicehub.lwm2m.api import values
from devicehub.lwm2m.models import Event, Resource, ResourceType, ResourceValue
from devicehub.lwm2m.models.resources import COLUMNS, columns
from devicehub.messages.lwm2m.values import DataType, ObjectLink
from devicehub.models import digest_api_key
from rig.endpoints import endpoint as endpoint
from rig.endpoints import observe
from rig.programs import Program, person, program

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
LATEST, HISTORY = "/api/lwm2m/endpoints/urn:dev:a/resources/", "/api/lwm2m/endpoints/urn:dev:a/history/"
# A value of each type, as it is stored and as JSON has it.
HELD = [
    (DataType.STRING, "Tür 7", "Tür 7"),
    (DataType.STRING, "", ""),
    (DataType.INTEGER, -(2**63), -(2**63)),
    (DataType.UNSIGNED_INTEGER, 2**64 - 1, 2**64 - 1),
    (DataType.FLOAT, 21.5, 21.5),
    (DataType.FLOAT, Decimal("0.12345678901234567890123"), "0.12345678901234567890123"),
    (DataType.BOOLEAN, True, True),
    (DataType.OPAQUE, b"\x01\xff", "Af8="),
    (DataType.OPAQUE, b"", ""),
    (DataType.TIME, 1_764_590_400, "2025-12-01T12:00:00Z"),
    (DataType.TIME, Decimal("-0.25"), "1969-12-31T23:59:59.75Z"),
    (DataType.TIME, 2**60, 2**60),
    (DataType.OBJLNK, ObjectLink(3303, 1), "3303:1"),
    (DataType.CORELNK, "</3/0>,</3303/0>;ver=1.1", "</3/0>,</3303/0>;ver=1.1"),
]


@pytest.fixture
def reader():
    """Return a program that reads all values."""
    return program(person("ada"), ["telemetry:read"])


def latest(endpoint, path, kind, value, moment=NOON):
    """Store the latest value of a resource."""
    ids = [*map(int, path.split("/")), None][:4]
    known = ResourceType.objects.filter(object__object_id=ids[0], resource_id=ids[2]).first()
    return Resource(
        device=endpoint,
        path=path,
        resource_type=known,
        object_id=ids[0],
        object_instance=ids[1],
        resource_id=ids[2],
        resource_instance=ids[3],
        timestamp=moment,
        received_at=moment + timedelta(seconds=1),
        **dict(zip(COLUMNS, columns(kind, value), strict=True)),
    )


def test_a_value_has_its_names_its_unit_and_its_times(reader, endpoint):
    latest(endpoint, "3303/0/5700", DataType.FLOAT, 21.5).save()

    answer = reader.get(LATEST)

    assert answer.status_code == 200
    assert answer.json() == {
        "next": None,
        "previous": None,
        "results": [
            {
                "path": "/3303/0/5700",
                "object": "Temperature",
                "name": "Sensor Value",
                "type": "Float",
                "unit": "",
                "value": 21.5,
                "timestamp": "2026-12-01T12:00:00Z",
                "received_at": "2026-12-01T12:00:01Z",
            }
        ],
    }


def test_the_unit_is_that_of_the_definition_or_of_the_sensor(reader, endpoint):
    """A sensor of IPSO names its unit in a resource of its own."""
    for path, kind, value in (
        ("3303/0/5700", DataType.FLOAT, 1.5),
        ("3303/0/5701", DataType.STRING, "Cel"),
        ("3/0/7/0", DataType.INTEGER, 3300),
    ):
        latest(endpoint, path, kind, value).save()
    observe(endpoint, (NOON, 1.5))

    units = {one["path"]: one["unit"] for one in reader.get(LATEST).json()["results"]}

    assert units == {"/3/0/7/0": "mV", "/3303/0/5700": "Cel", "/3303/0/5701": ""}
    assert reader.get(HISTORY, path="/3303/0/5700").json()["results"][0]["unit"] == "Cel"


def test_every_type_is_exact_in_both_lists(reader, endpoint):
    event = Event.objects.create(device=endpoint, type="send", timestamp=NOON, received_at=NOON)
    for number, (kind, value, _) in enumerate(HELD):
        row = latest(endpoint, f"33000/0/{number}", kind, value)
        row.save()
        held = {name: getattr(row, name) for name in ("path", *COLUMNS)}
        ResourceValue.objects.create(device=endpoint, event=event, timestamp=NOON, received_at=NOON, **held)

    found = {one["path"]: one for one in reader.get(LATEST).json()["results"]}

    for number, (kind, _, shown) in enumerate(HELD):
        path = f"/33000/0/{number}"
        assert (found[path]["type"], repr(found[path]["value"])) == (kind, repr(shown))
        assert (found[path]["object"], found[path]["name"]) == (None, None)
        [stored] = reader.get(HISTORY, path=path).json()["results"]
        assert repr(stored["value"]) == repr(shown)


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("", 5),
        ("/", 5),
        ("/3303", 3),
        ("3303/0", 2),
        ("/3303/0/5700", 1),
        ("/3/0/7", 1),
        ("/3/0/7/1", 1),
        ("/3/0/7/2", 0),
    ],
)
def test_a_path_selects_what_lies_in_it(reader, endpoint, path, count):
    """The object 3303 does not hold what 33030 holds."""
    for place in ("3303/0/5700", "3303/0/5701", "3303/1/5700", "33030/0/1", "3/0/7/1"):
        latest(endpoint, place, DataType.INTEGER, 1).save()

    assert len(reader.get(LATEST, path=path).json()["results"]) == count


def test_the_history_has_a_range_and_comes_in_pages(reader, endpoint):
    """The newest value is the first; values of one time stand on one page or the next, none is lost."""
    observe(endpoint, *((NOON + timedelta(minutes=number // 2), number) for number in range(7)))
    params = {"path": "/3303/0/5700", "fields": "value", "limit": 3}

    first = reader.get(HISTORY, **params).json()
    second = reader.get(first["next"]).json()

    shown = [[one["value"] for one in page["results"]] for page in (first, second)]
    assert shown == [[6, 5, 4], [3, 2, 1]]
    assert reader.get(second["previous"]).json()["results"] == first["results"]
    within = {"from": "2026-12-01T12:01:00Z", "to": "2026-12-01T12:03:00Z"}
    assert [one["value"] for one in reader.get(HISTORY, **params, **within).json()["results"]] == [5, 4, 3]
    assert reader.get(HISTORY, path="/3303/1/5700").json()["results"] == []


def test_a_page_of_long_values_ends_early(reader, endpoint, monkeypatch):
    """Each row is on one page, also one that is longer than all of a page."""
    monkeypatch.setattr(values, "MOST_SIZE", 10)
    texts = ["a" * 4, "b" * 4, "c" * 4, "d" * 20, "e"]
    for number, text in enumerate(texts):
        latest(endpoint, f"33000/0/{number}", DataType.STRING, text).save()

    pages, url = [], LATEST
    while url:
        page = reader.get(url).json()
        pages.append([one["value"] for one in page["results"]])
        url, before = page["next"], page["previous"]

    assert pages == [["a" * 4, "b" * 4], ["c" * 4], ["d" * 20], ["e"]]
    assert [one["value"] for one in reader.get(before).json()["results"]] == ["d" * 20]


def test_a_number_of_very_many_digits_is_shown(reader, endpoint):
    """Python converts at most 4,300 digits of an integer."""
    row = latest(endpoint, "33000/0/1", DataType.INTEGER, 2**70)
    row.text = "1" * 5_000
    row.save()

    assert reader.get(LATEST).json()["results"][0]["value"] == "1" * 5_000


@pytest.mark.parametrize(
    ("url", "params"),
    [
        (LATEST, {"path": "/3303/*"}),
        (LATEST, {"path": "/65535"}),
        (LATEST, {"path": "/1/2/3/4/5"}),
        (LATEST, {"path": "/3303\x00"}),
        (LATEST, {"fields": "number"}),
        (HISTORY, {}),
        (HISTORY, {"path": "/3303/0"}),
        (HISTORY, {"path": "/3303/0/5700", "from": "2026-12-01"}),
        (HISTORY, {"path": "/3303/0/5700", "to": "9" * 40}),
        (HISTORY, {"path": "/3303/0/5700", "since": "1"}),
        (HISTORY, {"path": "/3303/0/5700", "cursor": "x"}),
    ],
)
def test_a_wrong_parameter_is_400(reader, endpoint, url, params):
    assert reader.get(url, **params).status_code == 400


def test_values_of_other_sites_and_without_the_scope_are_not_read(endpoint):
    """A device reads none of them, not even its own."""
    latest(endpoint, "3303/0/5700", DataType.FLOAT, 1.5).save()
    southerner = program(person("southerner", sites=["south"]))
    nameless = program(person("nobody", role=""))
    registry = program(person("ada"), ["devices:read"])
    endpoint.api_key = digest_api_key("a" * 64)
    endpoint.save(update_fields=["api_key"])
    for url in (LATEST, f"{HISTORY}?path=/3303/0/5700"):
        assert southerner.get(url).status_code == 404
        assert nameless.get(url).status_code == 403
        assert registry.get(url).status_code == 403
        assert Program("a" * 64).get(url).status_code == 403
        assert Program().get(url).status_code == 401
    endpoint.site = "south"
    endpoint.save(update_fields=["site"])
    assert len(southerner.get(LATEST).json()["results"]) == 1
    callers._failures._found.clear()


def test_as_many_queries_for_many_rows_as_for_few(endpoint, django_assert_max_num_queries):
    reader = Program(user=person("ada"))
    observe(endpoint, (NOON - timedelta(hours=1), 1.5))
    reader.get(f"{HISTORY}?path=/3303/0/5700")  # The process reads the definitions, which it then keeps.
    counts = set()
    for start in (0, 10):
        rows = [
            latest(endpoint, f"3303/{number}/{resource}", DataType.FLOAT, 1.5)
            for number in range(start, start + (10 if not start else 200))
            for resource in (5700, 5601)
        ]
        Resource.objects.bulk_create(rows)
        observe(
            endpoint, *((NOON + timedelta(seconds=start + number), 1.5) for number in range(10 + 10 * start))
        )
        for url in (f"{LATEST}?limit=1000", f"{HISTORY}?path=/3303/0/5700&limit=1000"):
            with django_assert_max_num_queries(12) as queries:
                assert reader.get(url).status_code == 200
            counts.add((url, len(queries)))
    assert len(counts) == 2
