"""The admin pages of endpoints, definitions, values and events."""

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from devicehub import roles
from devicehub.admin import texts
from devicehub.lwm2m import names
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import (
    Endpoint,
    EndpointMessage,
    Event,
    EventResource,
    ObjectType,
    Resource,
    ResourceType,
    ResourceValue,
)
from rig.credential_pages import nonce_of
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
MODELS = (Endpoint, EndpointMessage, Event, EventResource, ObjectType, Resource, ResourceType, ResourceValue)
PATH = '"lwm2m_resource"."path"'
EVIDENCE = (EndpointMessage, Event, EventResource, ObjectType, Resource, ResourceType, ResourceValue)


def url(model, name, *arguments):
    return reverse(f"admin:lwm2m_{model._meta.model_name}_{name}", args=arguments)


@pytest.fixture
def rows():
    """Create a row of each model; return them by model."""
    now = timezone.now()
    endpoint = Endpoint.objects.create(
        device_id="T-r-7", endpoint_name="Tür 7", registered=True, last_registration=now, lifetime=60,
        object_links=["/3/0", "/3303/0"], object_versions={"3303": "1.1"},
    )  # fmt: skip
    resource = ResourceType.objects.get(object__object_id=3303, object__version="1.1", resource_id=5700)
    value = {"path": "3303/0/5700", "type": "Float", "number": 21.5, "timestamp": now}
    ids = {"object_id": 3303, "object_instance": 0, "resource_id": 5700, "resource_type": resource}
    event = Event.objects.create(device=endpoint, type="notification", timestamp=now, received_at=now)
    alarm = Event.objects.create(device=endpoint, type="alarm", timestamp=now, received_at=now)
    return {
        Endpoint: endpoint,
        EndpointMessage: EndpointMessage.objects.create(device=endpoint, topic="things/lwm2m/T-r-7/data"),
        Event: event,
        EventResource: EventResource.objects.create(
            device=endpoint, event=alarm, path="3303/0/5700", type="Float", number=99.5, timestamp=now
        ),
        ObjectType: resource.object,
        Resource: Resource.objects.create(device=endpoint, received_at=now, **ids, **value),
        ResourceType: resource,
        ResourceValue: ResourceValue.objects.create(device=endpoint, received_at=now, event=event, **value),
    }


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_each_model_has_a_list_and_a_page_with_help(admin_client, rows, model):
    listed = admin_client.get(url(model, "changelist"))
    one = admin_client.get(url(model, "change", rows[model].pk))

    assert (listed.status_code, one.status_code) == (200, 200)
    assert not admin.site._registry[model].empty_text.startswith("There is nothing here yet")
    assert {field.name for field in model._meta.concrete_fields if not field.is_relation} - set(
        texts.help_texts(model)
    ) <= UNSHOWN


# Columns without a field of their own: credentials, the parts of a value, and those of a path.
UNSHOWN = {
    *("id", "mqtt_password_hash", "previous_password_hash", "api_key", "password_mark", "api_key_hash"),
    *("path", "number", "integer", "text", "opaque", "object_instance", "resource_instance"),
    *("object_versions", "object_links", "quarantined", "digest"),
    *("object_id", "resource_id", "api_key_digest", "previous_until_used"),
}


@pytest.mark.parametrize("model", EVIDENCE, ids=lambda model: model.__name__)
def test_nothing_adds_changes_or_deletes_evidence(admin_client, rows, model):
    for page in (
        admin_client.get(url(model, "add")),
        admin_client.post(url(model, "change", rows[model].pk), {}),
        admin_client.post(url(model, "delete", rows[model].pk), {"post": "yes"}),
    ):
        assert page.status_code == 403
    assert model.objects.filter(pk=rows[model].pk).exists()
    assert "delete_selected" not in admin_client.get(url(model, "changelist")).content.decode()


def test_an_endpoint_is_added_by_its_name_and_gets_the_device_id_of_it(admin_client):
    add = url(Endpoint, "add")
    page = admin_client.get(add).content.decode()
    assert 'name="device_id"' not in page
    typed = {"endpoint_name": "Tür 7/a", "name": "Door", "metadata_key": "", "metadata_value": ""}
    form = {"nonce": nonce_of(page), **typed}

    answer = admin_client.post(add, form)

    assert answer.status_code == 200
    made = Endpoint.objects.get()
    assert (made.endpoint_name, made.device_id) == ("Tür 7/a", names.device_id("Tür 7/a"))
    assert made.mqtt_username in answer.content.decode()
    assert made.mqtt_password_hash

    page = admin_client.get(url(Endpoint, "change", made.pk)).content.decode()
    assert "Tür 7/a" in page
    assert "Never registered" in page


@pytest.mark.parametrize(
    ("taken", "name"),
    [({"device_id": "weir"}, "weir"), ({"device_id": "x", "endpoint_name": "Tür"}, "Tür"), ({}, "")],
)
def test_a_name_that_is_taken_or_missing_is_refused(admin_client, taken, name):
    if taken:
        Endpoint.objects.create(**taken)
    add = url(Endpoint, "add")
    form = {"nonce": nonce_of(admin_client.get(add).content.decode()), "endpoint_name": name}

    page = admin_client.post(add, form)

    assert page.status_code == 200
    assert page.context["adminform"].form.errors
    assert Endpoint.objects.count() == bool(taken)


def test_a_change_of_an_endpoint_leaves_its_registration(admin_client, rows):
    endpoint = rows[Endpoint]
    form = {
        "name": "Front door",
        "site": "",
        "status": "",
        "metadata_key": "",
        "metadata_value": "",
        "registered": "",
    }

    assert admin_client.post(url(Endpoint, "change", endpoint.pk), form).status_code == 302

    now = Endpoint.objects.get()
    assert (now.name, now.registered, now.endpoint_name) == ("Front door", True, "Tür 7")


def test_lists_are_searched_and_filtered(admin_client, rows):
    def listed(model, query):
        return len(admin_client.get(url(model, "changelist") + query).context["cl"].result_list)

    assert listed(Endpoint, "?q=Tür") == 1
    assert listed(Endpoint, "?registration=registered") == 1
    assert listed(Endpoint, "?registration=unregistered") == 0
    assert listed(ObjectType, "?q=3303") >= 1
    assert listed(ObjectType, "?q=humidity") >= 1
    assert (
        listed(ResourceType, f"?object__id__exact={rows[ObjectType].pk}")
        == rows[ObjectType].resources.count()
    )
    assert listed(Resource, "?q=3303/0") == 1
    assert listed(Resource, "?q=Sensor Value") == 1
    assert listed(Event, "?type=alarm") == 1
    assert listed(Event, "?type=send") == 0
    assert listed(ResourceValue, f"?device={rows[Endpoint].pk}") == 1


@pytest.mark.parametrize("model", [Event, EventResource, Resource, ResourceValue], ids=lambda m: m.__name__)
def test_rows_are_searched_by_endpoint_without_a_join(admin_client, rows, model):
    """In a long history a comparison of the names of each row's endpoint takes seconds."""
    own = model.objects.filter(device=rows[Endpoint]).count()
    other = Endpoint.objects.create(device_id="other")
    Event.objects.create(device=other, type="send", timestamp=timezone.now(), received_at=timezone.now())

    def listed(words):
        with CaptureQueriesContext(connection) as done:
            page = admin_client.get(url(model, "changelist"), {"q": words})
        counts = [
            query["sql"] for query in done if "COUNT" in query["sql"] and model._meta.db_table in query["sql"]
        ]
        found = len(page.context["cl"].result_list)
        assert counts or not found
        assert not [sql for sql in counts if "JOIN" in sql]
        return found

    assert listed("T-r") == listed("Tür") == own > 0
    assert listed("T-r nobody") == listed("nobody") == 0
    if model is not Event:
        assert listed("T-r /3303/0") == listed("3303/0/57 Tür") == listed("33 T-r") == 1
        assert listed("T-r 3304/") == listed("T-r 0") == listed("T-r 34") == 0


@pytest.mark.parametrize("model", [EventResource, ResourceValue], ids=lambda model: model.__name__)
def test_a_path_without_an_endpoint_is_not_searched_in_all_the_history(admin_client, rows, model):
    """No index finds it. The page says what to add."""
    address = url(model, "changelist")
    with CaptureQueriesContext(connection) as done:
        page = admin_client.get(address, {"q": "3303/0/5700"})

    assert not [query for query in done if '"path"' in query["sql"]]
    assert len(page.context["cl"].result_list) == 0
    [hint] = page.context["messages"]
    assert str(hint).startswith("Name an endpoint too, or choose one in the filter")
    for query in ({"q": "3303/0", "device": rows[Endpoint].pk}, {"q": "T-r 3303/0"}, {"q": "nobody 3303"}):
        page = admin_client.get(address, query)
        assert (len(page.context["cl"].result_list), list(page.context["messages"])) == (
            0 if "nobody" in query["q"] else 1,
            [],
        )


@pytest.mark.parametrize("digits", [30, 5000])
@pytest.mark.parametrize("model", [Event, EventResource, Resource, ResourceValue], ids=lambda m: m.__name__)
def test_a_number_beyond_all_keys_finds_no_endpoint(admin_client, rows, model, digits):
    """Python converts at most 4,300 digits, and SQLite keys of at most 64 bits."""
    query = {"device": "9" * digits, "q": "3303/0/5700"}

    page = admin_client.get(url(model, "changelist"), query)

    assert list(page.context["cl"].result_list) == []


@pytest.mark.parametrize("model", [Event, EventResource, Resource, ResourceValue], ids=lambda m: m.__name__)
def test_a_search_for_very_many_words_is_no_query_of_very_many_parts(admin_client, rows, model):
    many = " ".join(map("value{}".format, range(200)))
    with CaptureQueriesContext(connection) as done:
        page = admin_client.get(url(model, "changelist"), {"q": many})

    assert len(page.context["cl"].result_list) == 0
    assert max(len(query["sql"]) for query in done) < 5_000
    [hint] = page.context["messages"]
    assert str(hint) == "Search for at most 10 words at once"
    again = admin_client.get(url(model, "changelist"), {"q": "T-r " * 200})
    assert len(again.context["cl"].result_list) == model.objects.filter(device=rows[Endpoint]).count()


def test_the_latest_values_of_a_path_are_found_by_the_index_of_objects(admin_client, rows):
    for words, found in {"33": 1, "3303": 1, "3303/0/5": 1, "/3303/": 1, "0": 0, "330": 1, "3304": 0}.items():
        with CaptureQueriesContext(connection) as done:
            page = admin_client.get(url(Resource, "changelist"), {"q": words})
        assert len(page.context["cl"].result_list) == found, words
        searched = [sql for sql in (one["sql"] for one in done) if "LIKE" in sql and PATH in sql]
        assert searched
        assert all('"object_id"' in sql for sql in searched)


def test_percent_is_shown_as_its_sign(admin_client, rows):
    level = ResourceType.objects.filter(unit="/100").first()
    Resource.objects.filter(pk=rows[Resource].pk).update(resource_type=level)

    assert f"{level.name} (%)" in admin_client.get(url(Resource, "changelist")).content.decode()


def test_the_page_of_an_event_has_its_values(admin_client, rows):
    page = admin_client.get(url(Event, "change", rows[Event].pk)).content.decode()

    assert re.search(r"/3303/0/5700</span> 21\.5", page)


def test_the_page_of_an_endpoint_leads_to_the_lists_that_its_reader_may_see(client, rows):
    staff = person("staff", role=None, is_staff=True)
    for name in ("endpoint", "event"):
        staff.user_permissions.add(Permission.objects.get(codename=f"view_{name}"))
    client.force_login(staff)

    page = client.get(url(Endpoint, "change", rows[Endpoint].pk)).content.decode()

    assert f"{url(Event, 'changelist')}?device=" in page
    assert f"{url(Resource, 'changelist')}?device=" not in page


def test_the_navigation_names_the_pages_once(admin_client, rows):
    page = admin_client.get(url(Endpoint, "changelist")).content.decode()

    for title in ("LwM2M endpoints", "LwM2M objects", "LwM2M resources", "LwM2M events", "LwM2M values"):
        assert len(re.findall(rf">\s*{title}\s*</span>", page)) == 1, title
    assert "Lwm2m" not in page


@pytest.mark.parametrize("role", roles.ALL_ROLES)
def test_every_role_reads_the_pages_and_operators_change_endpoints(client, rows, role):
    client.force_login(person("someone", role, is_staff=True))

    for model in MODELS:
        assert client.get(url(model, "change", rows[model].pk)).status_code == 200, model
    expected = 403 if role == roles.VIEWER else 200
    assert client.get(url(Endpoint, "add")).status_code == expected


def test_a_limited_user_reads_definitions_and_no_row_of_another_site(client, rows):
    client.force_login(person("southerner", roles.ADMINISTRATOR, sites=["south"], is_staff=True))

    for model in MODELS:
        is_definition = model in (ObjectType, ResourceType)
        assert client.get(url(model, "change", rows[model].pk)).status_code == (200 if is_definition else 302)
        assert "T-r-7" not in client.get(url(model, "changelist")).content.decode()


def test_the_kind_names_every_page():
    assert set(KIND.pages.admin) == set(MODELS)
