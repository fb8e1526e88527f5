"""The REST API: object types with their resources, and endpoints with their registrations."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Permission

from devicehub.api import callers
from devicehub.lwm2m.models import Endpoint, ObjectType, ResourceType
from devicehub.models import digest_api_key
from rig.endpoints import endpoint as endpoint
from rig.programs import Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
OBJECTS, ENDPOINTS = "/api/lwm2m/objects/", "/api/lwm2m/endpoints/"


@pytest.fixture
def reader():
    """Return a program that reads definitions and endpoints."""
    return program(person("ada"), ["devices:read"])


def test_an_object_has_its_resources(reader):
    [found] = reader.get(OBJECTS, object_id=3303, version="1.0").json()["results"]

    assert (found["object_id"], found["version"], found["name"], found["multiple"]) == (
        3303,
        "1.0",
        "Temperature",
        True,
    )
    by_id = {one["resource_id"]: one for one in found["resources"]}
    assert by_id[5700] | {"description": ""} == {
        "resource_id": 5700,
        "name": "Sensor Value",
        "type": "Float",
        "operations": ["read"],
        "multiple": False,
        "mandatory": True,
        "unit": "",
        "range": "",
        "description": "",
    }
    assert (by_id[5605]["type"], by_id[5605]["operations"]) == (None, ["execute"])


def test_one_object_is_that_of_a_version_or_the_newest(reader):
    for version in ("1.9", "1.10"):
        made = ObjectType.objects.create(object_id=33000, version=version, name=version)
        ResourceType.objects.create(
            object=made, resource_id=1, name="One", type="Integer", operations="RW", unit="Cel"
        )

    newest = reader.get(f"{OBJECTS}33000/").json()

    assert (newest["version"], newest["versions"]) == ("1.10", ["1.9", "1.10"])
    assert newest["resources"][0]["operations"] == ["read", "write"]
    assert reader.get(f"{OBJECTS}33000/", version="1.9", fields="name").json() == {"name": "1.9"}
    assert reader.get(f"{OBJECTS}33000/", version="2.0").status_code == 404
    assert reader.get(f"{OBJECTS}33001/").status_code == 404
    assert reader.get(f"{OBJECTS}{10**30}/").status_code == 404


def test_objects_come_in_pages_by_id(reader):
    pages, url = [], f"{OBJECTS}?limit=200&fields=object_id,version"
    while url:
        page = reader.get(url).json()
        pages += [(one["object_id"], one["version"]) for one in page["results"]]
        url = page["next"]
    assert pages == list(
        ObjectType.objects.order_by("object_id", "version").values_list("object_id", "version")
    )


def test_an_endpoint_has_its_registration(reader, endpoint):
    Endpoint.objects.update(
        registered=True,
        registration_id="r7",
        registered_at=NOON,
        last_registration=NOON,
        lifetime=60,
        lwm2m_version="1.1",
        binding="UQ",
        queue_mode=True,
        object_links=["/3/0", "/3303/0"],
        object_versions={"3303": "1.1"},
        site="north",
    )

    answer = reader.get(f"{ENDPOINTS}urn:dev:a/").json()

    assert answer == reader.get(ENDPOINTS).json()["results"][0]
    assert answer == {
        "endpoint": "urn:dev:a",
        "device_id": "urn:dev:a",
        "name": "",
        "site": "north",
        "is_active": True,
        "registered": True,
        "registration_id": "r7",
        "registered_at": "2026-12-01T12:00:00Z",
        "last_registration": "2026-12-01T12:00:00Z",
        "registration_ends_at": "2026-12-01T12:01:00Z",
        "lifetime": 60,
        "version": "1.1",
        "binding": "UQ",
        "queue_mode": True,
        "sleeping": False,
        "object_links": [{"path": "/3/0", "version": None}, {"path": "/3303/0", "version": "1.1"}],
    }


def test_an_endpoint_is_found_by_each_of_its_names(reader):
    """The endpoint name goes before the device id of another endpoint."""
    Endpoint.objects.create(device_id="T-r-7", endpoint_name="Tür 7/a", name="door")
    Endpoint.objects.create(device_id="one", endpoint_name="two", name="first")
    Endpoint.objects.create(device_id="two", endpoint_name="three", name="second")

    def named(name):
        answer = reader.get(f"{ENDPOINTS}{name}/")
        return answer.json().get("name") if answer.status_code == 200 else answer.status_code

    assert [named(name) for name in ("T-r-7", "T%C3%BCr 7%2Fa", "two", "three", "one")] == [
        "door",
        404,
        "first",
        "second",
        "first",
    ]
    assert [one["name"] for one in reader.get(ENDPOINTS, endpoint="Tür 7/a").json()["results"]] == ["door"]
    assert [one["name"] for one in reader.get(ENDPOINTS, device_id="two").json()["results"]] == ["second"]
    assert [named(name) for name in ("a%00b", "x" * 300, "%F0%9F%98%80")] == [404, 404, 404]


@pytest.mark.parametrize(
    ("url", "params"),
    [
        (OBJECTS, {"object_id": "x"}),
        (OBJECTS, {"object_id": 10**30}),
        (OBJECTS, {"object_id": -1}),
        (OBJECTS, {"version": "\x00"}),
        (OBJECTS, {"name": "x"}),
        (ENDPOINTS, {"registered": "true"}),
        (ENDPOINTS, {"fields": "api_key"}),
        (ENDPOINTS, {"cursor": "WzAsMV0"}),
    ],
)
def test_a_wrong_parameter_is_400_or_finds_nothing(reader, endpoint, url, params):
    answer = reader.get(url, **params)
    assert answer.status_code == (200 if params.get("cursor") else 400)


def test_endpoints_of_other_sites_are_not_found(endpoint):
    """A person without the permission is told so; a device reads no definition and no endpoint."""
    southerner = program(person("southerner", sites=["south"]))
    assert southerner.get(ENDPOINTS).json()["results"] == []
    assert southerner.get(f"{ENDPOINTS}urn:dev:a/").status_code == 404
    nameless = person("nobody", role="")
    assert program(nameless).get(ENDPOINTS).status_code == 403
    assert program(nameless).get(OBJECTS).status_code == 403
    nameless.user_permissions.add(Permission.objects.get(codename="view_objecttype"))
    assert program(nameless, name="b").get(OBJECTS).status_code == 200
    endpoint.api_key = digest_api_key("a" * 64)
    endpoint.save(update_fields=["api_key"])
    own = Program("a" * 64)
    for url in (OBJECTS, f"{OBJECTS}3/", ENDPOINTS, f"{ENDPOINTS}urn:dev:a/"):
        assert own.get(url).status_code == 403
        assert program(person(url), ["telemetry:read"]).get(url).status_code == 403
        assert Program().get(url).status_code == 401
    callers._failures._found.clear()


def test_the_index_names_the_lists(reader):
    found = reader.get("/api/").json()

    for name in ("objects", "endpoints", "events"):
        assert found[f"lwm2m_{name}"].endswith(f"/api/lwm2m/{name}/")


def test_as_many_queries_for_many_rows_as_for_few(django_assert_max_num_queries):
    reader, counts = Program(user=person("ada")), set()
    reader.get(OBJECTS)  # The process reads the definitions, which it then keeps.
    for start in (0, 10):
        Endpoint.objects.bulk_create(
            Endpoint(
                device_id=f"E{number}",
                endpoint_name=f"E{number}",
                mqtt_username=f"e{number}",
                object_links=["/3/0"],
            )
            for number in range(start, start * 20 + 10)
        )
        for url, limit in ((ENDPOINTS, 1_000), (OBJECTS, 10 if not start else 1_000)):
            with django_assert_max_num_queries(12) as queries:
                assert reader.get(url, limit=limit).status_code == 200
            counts.add((url, len(queries)))
    assert len(counts) == 2


@pytest.mark.parametrize("character", ["x", "名", "😀", "\x01"])
def test_the_pages_lead_on_behind_the_longest_name(reader, character):
    """A cursor holds the name, and so may be long."""
    for number, length in enumerate((254, 255)):
        Endpoint.objects.create(device_id=f"E-{number}", endpoint_name=character * length)
    page = reader.get(ENDPOINTS, limit=1).json()
    assert [one["device_id"] for one in page["results"]] == ["E-0"]
    assert [one["device_id"] for one in reader.get(page["next"]).json()["results"]] == ["E-1"]
