"""The pages of endpoints: list, tree, history and events, as a viewer sees them."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from devicehub.dashboard import navigation
from devicehub.lwm2m import catalogue
from devicehub.lwm2m.models import (
    Endpoint,
    Event,
    EventResource,
    ObjectType,
    Resource,
    ResourceType,
    ResourceValue,
)
from devicehub.lwm2m.models.resources import columns
from devicehub.lwm2m.pages import chart, endpoints, events, tree
from devicehub.messages.lwm2m.values import DataType, ObjectLink
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]


@pytest.fixture
def definitions():
    """Define Device and Temperature as far as the tests need them, and nothing else."""
    ObjectType.objects.all().delete()
    device = ObjectType.objects.create(
        object_id=3, version="1.1", name="Device", description="About the device."
    )
    sensor = ObjectType.objects.create(object_id=3303, version="1.1", name="Temperature")
    rows = [
        (device, 0, "Manufacturer", "String", "R", ""),
        (device, 4, "Reboot", "", "E", ""),
        (device, 6, "Available Power Sources", "Integer", "R", ""),
        (device, 9, "Battery Level", "Integer", "R", "/100"),
        (sensor, 5700, "Sensor Value", "Float", "R", "Cel"),
        (sensor, 5750, "Application Type", "String", "RW", ""),
    ]
    ResourceType.objects.bulk_create(
        ResourceType(object=of, resource_id=number, name=name, type=kind, operations=allowed, unit=unit)
        for of, number, name, kind, allowed, unit in rows
    )
    catalogue.clear()
    yield
    catalogue.clear()


@pytest.fixture
def endpoint(definitions):
    now = timezone.now()
    return Endpoint.objects.create(
        device_id="urn:dev:a",
        name="Weir gauge",
        site="north",
        registered=True,
        registered_at=now - timedelta(hours=3),
        last_registration=now - timedelta(minutes=10),
        last_seen=now - timedelta(minutes=1),
        lifetime=3600,
        lwm2m_version="1.1",
        binding="UQ",
        queue_mode=True,
        object_versions={"3303": "1.1"},
        object_links=["/3/0", "/3303/0", "/5/0"],
    )


@pytest.fixture
def viewer(client):
    client.force_login(person("viewer"))
    return client


def store(endpoint, path, kind, value, *, ago=timedelta(seconds=5), event=None):
    """Store a value in the history, and as the latest one of its resource; *ago* is before *event*, or before now."""
    ids = [*map(int, path.split("/")), None][:4]
    at = (event.timestamp if event else timezone.now()) - ago
    held = dict(
        zip(("type", "number", "integer", "text", "opaque"), columns(DataType(kind), value), strict=True)
    )
    known = ResourceType.objects.filter(object__object_id=ids[0], resource_id=ids[2]).first()
    names = ("object_id", "object_instance", "resource_id", "resource_instance")
    Resource.objects.update_or_create(
        device=endpoint,
        path=path,
        defaults={
            **held,
            "resource_type": known,
            "timestamp": at,
            "received_at": at,
            **dict(zip(names, ids, strict=True)),
        },
    )
    ResourceValue.objects.create(
        device=endpoint, path=path, timestamp=at, received_at=at, event_id=event.pk if event else 0, **held
    )


def text_of(response):
    """Return the words of a page, each run of white space as one space."""
    page = re.sub(r"<(script|svg).*?</\1>", "", response.content.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def objects(client, endpoint, query=""):
    response = client.get(f"/devices/lwm2m/{endpoint.device_id}/objects/{query}")
    assert response.status_code == 200
    return response


def test_the_tree_has_names_units_operations_and_values(viewer, endpoint):
    store(endpoint, "3/0/0", "String", "Weirtech")
    store(endpoint, "3/0/9", "Integer", 68)
    store(endpoint, "3303/0/5700", "Float", 21.375)
    store(endpoint, "3303/1/5700", "Float", -3.5, ago=timedelta(hours=2))
    response = objects(viewer, endpoint)
    text = text_of(response)

    assert "Manufacturer /3/0/0 Weirtech" in text
    assert "Battery Level /3/0/9 68 %" in text
    assert "Sensor Value /3303/0/5700 21.375 °C" in text
    assert "Instance 1 /3303/1" in text
    assert "−3.5 °C 2 h ago old" in text
    assert text.index("/3/0/0 ") < text.index("Reboot /3/0/4") < text.index("/3/0/9 ")
    assert "1 resource of the definition without a value" in text
    assert "About the device." in text
    assert "UQ" in text
    assert "lifetime 1 h" in text
    assert "for 49 min 59 s more" in text
    assert "No value of it came yet." in text  # of the registered object 5


def test_values_of_every_type_are_readable(viewer, endpoint):
    store(endpoint, "3442/0/140", "Boolean", True)
    store(endpoint, "3442/0/150", "Opaque", bytes(range(40)))
    store(endpoint, "3442/0/160", "Time", 1_767_225_600)
    store(endpoint, "3442/0/161", "Time", 2**62)
    store(endpoint, "3442/0/170", "Objlnk", ObjectLink(3, 0))
    store(endpoint, "3442/0/171", "Objlnk", ObjectLink(65535, 65535))
    store(endpoint, "3442/0/125", "Unsigned Integer", 2**64 - 1)
    store(endpoint, "3/0/6/0", "Integer", 1)
    store(endpoint, "3/0/6/5", "Integer", 7)
    response = objects(viewer, endpoint)
    text = text_of(response)

    assert "/3442/0/140 yes" in text
    assert "00 01 02" in text
    assert "17 … 40 bytes" in text
    assert "2026-01-01 00:00:00 UTC" in text
    assert "4,611,686,018,427,387,904 seconds since 1970" in text
    assert 'href="?object=3#o3">/3/0</a>' in response.content.decode()
    assert "no object" in text
    assert "18,446,744,073,709,551,615" in text
    assert "Available Power Sources /3/0/6 2 values" in text
    assert "/3/0/6/5 7" in text


def test_an_unknown_object_says_how_to_define_it(viewer, endpoint):
    store(endpoint, "33001/0/7", "Opaque", b"\x01")

    text = text_of(objects(viewer, endpoint))

    assert "Unknown object /33001 no definition" in text
    assert "No definition: import its object file. " in text
    assert "manage.py import_lwm2m_objects 33001.xml" in text
    assert "Resource 7 /33001/0/7 01 1 byte" in text


def test_a_huge_tree_is_collapsed_and_paged(viewer, endpoint, django_assert_max_num_queries):
    now = timezone.now()
    Resource.objects.bulk_create(
        Resource(
            device=endpoint, path=f"{number}/{instance}/1", type="Integer", number=1, integer=1, object_id=number,
            object_instance=instance, resource_id=1, timestamp=now, received_at=now,
        )
        for number, instances in ((9000, 9_700), (9001, 300))
        for instance in range(instances)
    )  # fmt: skip
    with django_assert_max_num_queries(25):
        page = objects(viewer, endpoint)
    text = text_of(page)
    assert "10,000 of 5 objects" in text
    assert "9,700 values are more than this page shows." in text
    assert text.count("Resource 1 ") >= tree.MOST_ROWS
    assert len(page.content) < 1_000_000

    seen, query = [], "?object=9000"
    for _ in range(3):
        page = objects(viewer, endpoint, query)
        seen += re.findall(r"/9000/(\d+)/1<", page.content.decode())
        [query] = re.findall(r'rel="next" href="([^"]+)"', page.content.decode())
        query = query.replace("&amp;", "&")
    rows = list(dict.fromkeys(map(int, seen)))
    assert [number for number in rows if number] == list(range(1, 3 * tree.MOST_ROWS))


def test_more_objects_than_a_page_holds_are_paged(viewer, endpoint, monkeypatch):
    monkeypatch.setattr(tree, "MOST_OBJECTS", 2)
    page = objects(viewer, endpoint).content.decode()
    assert re.findall(r'<details id="o(\d+)"', page) == ["3", "5"]
    [query] = re.findall(r'rel="next" href="([^"]+)"', page)
    assert re.findall(r'<details id="o(\d+)"', objects(viewer, endpoint, query).content.decode()) == ["3303"]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("battery", ["3/0/9"]),
        ("/3303/0", ["3303/0/5700"]),
        ("temperature", ["3303/0/5700", "3303/1/5700"]),
        ("330", []),
        ("nothing", []),
    ],
)
def test_the_search_finds_names_and_paths(viewer, endpoint, query, paths):
    for path, kind, value in (
        ("3/0/9", "Integer", 1),
        ("3303/0/5700", "Float", 1.0),
        ("3303/1/5700", "Float", 2.0),
    ):
        store(endpoint, path, kind, value)

    page = objects(viewer, endpoint, f"?q={query}").content.decode()

    assert re.findall(r'<th scope="row".*?<span class="mono">/([\d/]+)</span>', page) == paths
    if not paths:
        assert "No resource with a value fits." in page


@pytest.mark.parametrize(
    "query",
    ["?q=%00", "?object=99999", "?object=x&after=../..", "?resource=1/2/3/4/5", "?range=9y", "?from=-1"],
)
def test_a_selection_that_cannot_be_read_is_left_out(viewer, endpoint, query):
    store(endpoint, "3303/0/5700", "Float", 1.0)

    assert "Sensor Value" in text_of(objects(viewer, endpoint, query))


def test_the_history_of_a_number_is_a_chart_in_words_and_a_table(viewer, endpoint):
    for minutes in range(30):
        store(endpoint, "3303/0/5700", "Float", 20.0 + minutes, ago=timedelta(minutes=30 - minutes))

    page = objects(viewer, endpoint, "?resource=3303/0/5700&range=1h")

    found = page.context["history"]
    assert found.chart["series"][0]["v"] == [20.0 + minute for minute in range(30)]
    assert found.chart["unit"] == "°C"
    assert "Sensor Value in the last 1 h: between 20 and 49 °C" in page.content.decode()
    assert len(found.latest) == chart.LATEST
    assert found.has_more
    assert found.latest[0][1].text == "49"
    assert 'aria-current="true">Sensor Value' in page.content.decode()


def test_a_value_whose_clock_is_a_little_ahead_is_in_the_chart(endpoint):
    store(endpoint, "3303/0/5700", "Float", 4.5, ago=-timedelta(minutes=4))
    place = endpoints.parse({"resource": "3303/0/5700", "range": "1h"})

    [series] = chart.history(endpoint, place, timezone.now()).chart["series"]

    assert series["v"] == [4.5]


@pytest.mark.parametrize(("resource", "unit"), [(5601, "°F"), (5750, ""), (5518, "")])
def test_only_measured_values_have_the_unit_that_their_instance_names(endpoint, resource, unit):
    store(endpoint, "3303/0/5701", "String", "°F")
    store(endpoint, f"3303/0/{resource}", "Float", 1.0)
    place = endpoints.parse({"resource": f"3303/0/{resource}"})

    assert chart.history(endpoint, place, timezone.now()).unit == unit


def test_many_values_are_given_in_buckets(endpoint, monkeypatch):
    monkeypatch.setattr(chart.series, "MAX_POINTS", 10)
    for second in range(20):
        store(endpoint, "3303/0/5700", "Float", float(second), ago=timedelta(seconds=200 - second))
    place = endpoints.parse({"resource": "3303/0/5700", "range": "1h"})

    [series] = chart.history(endpoint, place, timezone.now()).chart["series"]

    assert sum(len(column) for column in (series["t"], series["low"], series["high"])) == 3 * len(series["t"])
    assert len(series["t"]) <= 5
    assert min(series["low"]) == 0.0
    assert max(series["high"]) == 19.0


@pytest.mark.parametrize("may_list", [True, False])
def test_the_history_leads_to_all_values_for_staff_who_may_list_them(client, endpoint, may_list):
    for seconds in range(chart.LATEST + 1):
        store(endpoint, "3303/0/5700", "Float", 20.0, ago=timedelta(seconds=seconds))
    staff = person("staff", role=None, is_staff=True)
    for name in ("endpoint", "resourcevalue") if may_list else ("endpoint",):
        staff.user_permissions.add(Permission.objects.get(codename=f"view_{name}"))
    client.force_login(staff)

    page = objects(client, endpoint, "?resource=3303/0/5700").content.decode()

    assert "The newest 20." in page
    assert ("All values of the endpoint" in page) is may_list


def test_the_history_of_a_text_is_a_table_alone(viewer, endpoint):
    store(endpoint, "3/0/0", "String", "Weirtech <b>")

    page = objects(viewer, endpoint, "?resource=3/0/0")

    assert page.context["history"].chart is None
    assert "Weirtech &lt;b&gt;" in page.content.decode()
    assert "chart-data" not in page.content.decode()


def test_an_endpoint_without_values_says_how_they_come(viewer):
    endpoint = Endpoint.objects.create(device_id="new")

    text = text_of(objects(viewer, endpoint))

    assert "No objects yet" in text
    assert "things/lwm2m/new/status" in text
    assert "Never registered" in text


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"sleeping": True}, "It sleeps."),
        ({"last_registration": timezone.now() - timedelta(hours=2)}, "Its registration expired."),
        ({"registered": False}, "Not registered"),
        ({"lifetime": 2**62}, "Registered"),
    ],
)
def test_the_state_of_the_registration_is_said(viewer, endpoint, fields, word):
    Endpoint.objects.filter(pk=endpoint.pk).update(**fields)

    assert word in text_of(objects(viewer, endpoint))


def test_a_registration_without_a_lifetime_is_not_said_to_have_ended(viewer, endpoint):
    """The bridge of flownexus tells no lifetime."""
    Endpoint.objects.filter(pk=endpoint.pk).update(lifetime=None)

    text = text_of(objects(viewer, endpoint))

    assert "Registered 3 h ago until its server reports the end" in text
    assert "it ended" not in text


def test_the_list_has_every_endpoint_with_its_registration(viewer, endpoint):
    Endpoint.objects.create(device_id="T-r-7", endpoint_name="Tür 7")

    text = text_of(viewer.get("/lwm2m/"))
    assert "urn:dev:a Weir gauge Registered" in text
    assert "T-r-7 Tür 7 Never registered" in text
    assert "1 registered, 0 of them asleep; 1 not registered." in text
    assert "urn:dev:a" not in text_of(viewer.get("/lwm2m/?state=unregistered"))
    assert "urn:dev:a" not in text_of(viewer.get("/lwm2m/?q=Tür"))
    assert "T-r-7" in text_of(viewer.get("/lwm2m/?q=Tür"))
    assert "No endpoint fits." in text_of(viewer.get("/lwm2m/?q=nowhere"))


def test_the_list_is_paged_by_id(viewer, monkeypatch):
    monkeypatch.setattr(endpoints, "PAGE", 2)
    Endpoint.objects.bulk_create(Endpoint(device_id=f"E-{number}") for number in range(3))

    page = viewer.get("/lwm2m/").content.decode()
    [query] = re.findall(r'rel="next" href="([^"]+)"', page)

    assert "E-1" in page
    assert "E-2" not in page
    assert "E-2" in viewer.get(f"/lwm2m/{query}").content.decode()


def test_pages_of_the_fleet_lead_to_the_endpoint_by_each_of_its_names(viewer, endpoint):
    Endpoint.objects.create(device_id="T-r-7", endpoint_name="Tür 7")

    overview = viewer.get("/").content.decode()

    assert 'href="/devices/lwm2m/urn:dev:a/objects/"' in overview
    assert "Tür 7" in overview
    found = viewer.get("/search/?q=Tür 7")
    assert (found.status_code, found.url) == (302, "/devices/lwm2m/T-r-7/objects/")
    assert "Tür 7" in viewer.get("/search/?q=Tür").content.decode()


def test_events_have_their_values_and_are_filtered(viewer, endpoint):
    now = timezone.now()
    other = Endpoint.objects.create(device_id="other")
    made = {
        (kind, device.device_id): Event.objects.create(
            device=device,
            type=kind,
            detail=detail,
            timestamp=now - ago,
            earliest=now - ago - timedelta(minutes=1),
            received_at=now,
        )
        for kind, device, detail, ago in (
            ("notification", endpoint, "", timedelta(minutes=1)),
            ("registration", endpoint, "registered", timedelta(minutes=2)),
            ("alarm", other, "", timedelta(days=3)),
        )
    }
    event = made["notification", "urn:dev:a"]
    for number in range(events.FIRST + 2):
        ago = timedelta(seconds=10 - number)  # The last one is the newest.
        store(endpoint, f"3303/{number}/5700", "Float", float(number), ago=ago, event=event)
    EventResource.objects.create(
        device=other,
        event=made["alarm", "other"],
        path="3303/0/5700",
        type="Float",
        number=99.5,
        timestamp=now,
    )

    text = text_of(viewer.get("/lwm2m/events/"))
    assert "Temperature: Sensor Value 7 °C" in text
    assert "Temperature: Sensor Value 2 °C all values" in text
    assert "Registration registered" in text
    assert "alarm" not in text.partition("Filter ")[2]  # It is older than the period.
    text = text_of(viewer.get("/lwm2m/events/?since=7d"))
    assert "alarm" in text
    assert "99.5" in text
    assert (
        "Notification"
        not in text_of(viewer.get("/lwm2m/events/?since=all&type=alarm&endpoint=other")).partition("Filter ")[
            2
        ]
    )
    assert "No event fits." in text_of(viewer.get("/lwm2m/events/?endpoint=other"))
    one = text_of(viewer.get(reverse("devicehub:lwm2m_event", args=[made["notification", "urn:dev:a"].pk])))
    assert "Temperature: Sensor Value /3303/7/5700 7 °C" in one


def test_values_of_events_have_the_unit_that_their_sensor_names(viewer, endpoint):
    """Objects of IPSO name the unit in a resource of their own, which need not be part of the event."""
    ResourceType.objects.filter(resource_id=5700).update(unit="")
    now = timezone.now()
    event = Event.objects.create(device=endpoint, type="notification", timestamp=now, received_at=now)
    store(endpoint, "3303/0/5701", "String", "Cel")
    for path in ("3303/0/5700", "3303/1/5700", "3303/0/5750"):
        store(endpoint, path, "Float", 4.5, ago=timedelta(0), event=event)

    text = text_of(viewer.get(f"/lwm2m/events/{event.pk}/"))

    assert "Sensor Value /3303/0/5700 4.5 °C" in text
    assert "Sensor Value /3303/1/5700 4.5 2" in text  # The date follows: its sensor names no unit.
    assert "Application Type /3303/0/5750 4.5 2" in text


def test_a_page_of_events_needs_as_many_queries_as_one_event(viewer, endpoint, django_assert_max_num_queries):
    now = timezone.now()
    for number in range(events.PAGE):
        kind = "alarm" if number % 2 else "notification"
        event = Event.objects.create(device=endpoint, type=kind, timestamp=now, received_at=now)
        if number % 2:
            EventResource.objects.create(
                device=endpoint, event=event, path="3303/0/5700", type="Float", number=number, timestamp=now
            )
        else:
            store(endpoint, "3303/0/5700", "Float", float(number), ago=timedelta(0), event=event)

    with django_assert_max_num_queries(20):
        page = viewer.get("/lwm2m/events/")

    assert [row.values[0].value.text for row in page.context["rows"]] == [
        str(number) for number in reversed(range(events.PAGE))
    ]


def test_events_of_an_endpoint_are_not_those_of_longer_names(viewer, endpoint):
    now = timezone.now()
    for one in (endpoint, Endpoint.objects.create(device_id="urn:dev:ab")):
        Event.objects.create(device=one, type="send", timestamp=now, received_at=now)

    def listed(text):
        rows = viewer.get("/lwm2m/events/", {"endpoint": text}).context["rows"]
        return sorted(row.event.device.device_id for row in rows)

    assert listed("urn:dev:a") == ["urn:dev:a"]
    assert listed("urn:dev") == ["urn:dev:a", "urn:dev:ab"]


def test_events_are_paged_without_a_gap(viewer, endpoint, monkeypatch):
    monkeypatch.setattr(events, "PAGE", 2)
    now = timezone.now()
    pks = [
        Event.objects.create(device=endpoint, type="send", timestamp=now, received_at=now).pk
        for _ in range(5)
    ]
    seen, query = [], ""
    while True:
        page = viewer.get(f"/lwm2m/events/{query}").content.decode()
        seen += list(dict.fromkeys(map(int, re.findall(r"/lwm2m/events/(\d+)/", page))))
        found = re.findall(r'rel="next" href="([^"]+)"', page)
        if not found:
            break
        query = found[0]
    assert seen == sorted(pks, reverse=True)


def test_empty_pages_say_what_would_be_there(viewer):
    text = text_of(viewer.get("/lwm2m/"))
    assert "No endpoints yet" in text
    assert "0 registered" not in text
    assert "Nothing happened in this period. Show any time" in text_of(viewer.get("/lwm2m/events/"))
    assert "No events yet" in text_of(viewer.get("/lwm2m/events/?since=all"))


def test_readers_see_the_endpoints_of_their_sites_alone(client, endpoint):
    now = timezone.now()
    store(endpoint, "3303/0/5700", "Float", 1.0)
    event = Event.objects.create(device=endpoint, type="send", timestamp=now, received_at=now)
    client.force_login(person("southerner", sites=["south"]))

    for url in ("/lwm2m/", "/lwm2m/events/", "/lwm2m/events/?endpoint=urn:dev:a", "/", "/search/?q=urn"):
        page = client.get(url)
        assert page.status_code == 200
        assert "Weir gauge" not in page.content.decode()
        assert "/devices/lwm2m/urn" not in page.content.decode()
    assert client.get(f"/devices/lwm2m/{endpoint.device_id}/objects/").status_code == 404
    assert client.get(f"/lwm2m/events/{event.pk}/").status_code == 404


def test_the_pages_need_a_sign_in_and_the_permission(client, rf, endpoint):
    urls = (
        "/lwm2m/",
        "/lwm2m/events/",
        "/lwm2m/events/1/",
        "/devices/lwm2m/",
        f"/devices/lwm2m/{endpoint.device_id}/objects/",
    )
    assert {client.get(url).status_code for url in urls} == {302}
    newcomer = person("newcomer", role=None)
    client.force_login(newcomer)
    assert {client.get(url).status_code for url in urls} == {403}
    request = rf.get("/")
    request.user = newcomer
    assert all(link.label != "LwM2M" for group in navigation.menu(request).groups for link in group.links)


def test_a_reader_of_other_devices_sees_no_endpoints(client, endpoint):
    reader = person("reader", role=None)
    reader.user_permissions.add(Permission.objects.get(codename="view_weatherstationdevice"))
    client.force_login(reader)
    event = Event.objects.create(
        device=endpoint, type="send", timestamp=timezone.now(), received_at=timezone.now()
    )

    assert client.get("/").status_code == 200
    for url in ("lwm2m/", "lwm2m/events/", f"lwm2m/events/{event.pk}/", "devices/lwm2m/urn:dev:a/objects/"):
        assert client.get(f"/{url}").status_code == 403, url


def test_the_rail_leads_to_the_endpoints(viewer, endpoint):
    page = objects(viewer, endpoint).content.decode()

    assert '<a href="/lwm2m/" title="LwM2M" aria-current="page">' in page


@pytest.mark.parametrize("device_id", ["nobody", "a%20b", "%00"])
def test_an_endpoint_that_is_not_there_is_not_found(viewer, device_id):
    assert viewer.get(f"/devices/lwm2m/{device_id}/objects/").status_code == 404


def test_a_page_of_an_endpoint_needs_few_queries(viewer, endpoint, django_assert_max_num_queries):
    for number in range(50):
        store(endpoint, f"3303/{number}/5700", "Float", 1.0)
    with django_assert_max_num_queries(25):
        objects(viewer, endpoint)
