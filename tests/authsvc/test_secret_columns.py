"""Columns with hashes: no page shows one, and no filter can read one letter by letter."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import FieldError
from django.db import models
from django.test import Client, RequestFactory
from django.urls import path

from authsvc import secret_columns
from authsvc.models import Account, Broker
from authsvc.secret_columns import SecretField
from fleet.models import WeatherStationDevice, WeatherStationReading

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_only, pytest.mark.pages]

SOUNDS_SECRET = re.compile(r"hash|digest|token|secret|key|password|credential")
NO_SECRETS = {  # Names of columns that sound secret but are not; all others must be secret columns.
    "credentials_changed_at",
    "api_keys",  # Whether a rotation makes API keys too.
    "device_key",  # It names a device, such as weatherstation/STATION-001.
    *("key", "object_key", "previous_token_until", "token_changed_at"),
    "digest",  # The digest of a message that is stored in the same row.
    "password_expires_at",
    "session_hash",  # The hash of a session key in the log of django-axes, which gives no access.
}
HASH = "a-stored-hash-of-a-password"


@pytest.fixture
def viewer(db: None) -> User:
    """Return a staff user with all permissions to view and no others."""
    user = User.objects.create_user("viewer", password="looks-around", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return user


@pytest.fixture
def get(client: Client, viewer: User) -> Callable[..., Any]:
    """Return a function that gets an admin page of a model as the viewer."""
    client.force_login(viewer)

    def page(model: type[models.Model], below: str = "", **query: str) -> Any:
        opts = model._meta
        return client.get(f"/admin/{opts.app_label}/{opts.model_name}/{below}", query)

    return page


def filled(model: type[models.Model]) -> models.Model:
    """Return a row of *model* with given values in its secret columns."""
    if model is Account:
        return Account.objects.create(username="ingest", password_hash=HASH, previous_password_hash=HASH)
    if model is Broker:
        return Broker.objects.create(name="mosquitto-1", token_digest=HASH, previous_token_digest=HASH[::-1])
    assert model is WeatherStationDevice
    return WeatherStationDevice.objects.create(
        device_id="STATION-001", mqtt_password_hash=HASH, previous_password_hash=HASH, api_key=HASH
    )


OWN = [
    (model, column)
    for model in (Account, Broker, WeatherStationDevice)
    for column in sorted(secret_columns.of(model))
]
LOOKUPS = {  # Each with a value that Django accepts for it: a page is refused by its lookup alone.
    "regex": "^a",
    "startswith": "a",
    "istartswith": "a",
    "contains": "a",
    "gt": "a",
    "lte": "a",
    "range": "a,b",
    "in": f"a,{HASH}",
    "exact": HASH,
    "isnull": "1",
    "": HASH,
}


def test_every_column_that_sounds_secret_is_secret():
    missing = {
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.concrete_fields
        if SOUNDS_SECRET.search(field.name) and field.name not in NO_SECRETS | secret_columns.of(model)
    }

    assert missing == set()


def test_the_list_has_the_secret_columns():
    assert secret_columns.of(Account) == {"password_hash", "previous_password_hash"}
    assert secret_columns.of(Broker) == {"previous_token_digest", "token_digest"}
    assert secret_columns.of(User) == {"password"}
    assert secret_columns.of(WeatherStationDevice) == {
        "api_key",
        "mqtt_password_hash",
        "previous_password_hash",
    }


@pytest.mark.parametrize(
    ("lookup", "is_secret"),
    [
        ("api_key", True),
        ("-api_key", True),
        ("device__api_key", True),
        ("device__mqtt_password_hash__regex", True),
        ("pk__previous_password_hash__startswith", True),
        ("user__password", True),
        ("session_key__gt", True),
        ("device_id__startswith", False),
        ("device_key", False),
        ("password_expires_at__isnull", False),
        ("", False),
    ],
)
def test_a_lookup_through_a_secret_column_is_secret(lookup, is_secret):
    assert secret_columns.is_secret(lookup) is is_secret


@pytest.mark.parametrize(("model", "column"), OWN, ids=lambda part: getattr(part, "__name__", part))
def test_staff_cannot_filter_a_list_by_a_secret_column(get, model, column):
    filled(model)

    for lookup, value in LOOKUPS.items():
        query = f"{column}__{lookup}" if lookup else column
        response = get(model, **{query: value})
        assert response.status_code == 400, query
        assert column not in response.content.decode()


def test_staff_cannot_filter_through_a_relation(get):
    filled(WeatherStationDevice)

    for model, lookup in (
        (WeatherStationReading, "device__mqtt_password_hash__regex"),
        (WeatherStationReading, "device_id__api_key__startswith"),
        (WeatherStationReading._meta.get_field("device").related_model, "readings__device__api_key__gt"),
        (apps.get_model("fleet", "weatherstationmessage"), "device__previous_password_hash"),
        (User, "password__regex"),
        (User, "logentry__user__password__regex"),
        (User, "groups__user__password__startswith"),
        (Group, "user__password__regex"),
    ):
        assert get(model, **{lookup: "^a"}).status_code == 400, lookup


def test_a_plain_filter_still_works(get):
    filled(WeatherStationDevice)

    assert "STATION-001" in get(WeatherStationDevice, device_id__startswith="STATION").content.decode()
    assert "STATION-001" not in get(WeatherStationDevice, device_id__startswith="VALVE").content.decode()


@pytest.mark.parametrize(("model", "column"), OWN, ids=lambda part: getattr(part, "__name__", part))
def test_no_reference_uses_a_secret_column(get, model, column):
    row = filled(model)

    for below in ("", f"{HASH}/change/", f"{HASH}/delete/", f"{row.pk}/change/"):
        assert get(model, below, _to_field=column).status_code in (400, 403), below
    for site_admin in admin.site._registry.values():
        if site_admin.model is model:
            assert not site_admin.to_field_allowed(RequestFactory().get("/"), column)


@pytest.mark.parametrize(("model", "column"), OWN, ids=lambda part: getattr(part, "__name__", part))
def test_preserved_filters_lead_to_the_same_refusal(client, model, column):
    """After saving, Django redirects to the list with the filters with which the form was opened."""
    row = filled(model)
    client.force_login(User.objects.create_superuser("admin"))
    opts = model._meta
    preserved = urlencode({"_changelist_filters": urlencode({f"{column}__regex": "^a"})})
    page = f"/admin/{opts.app_label}/{opts.model_name}/{row.pk}/change/?{preserved}"

    form = client.get(page).context["adminform"].form
    fields = {n: v for n, v in form.initial.items() if n in form.fields and v is not None}
    saved = client.post(
        page, {n: v for n, v in fields.items() if not hasattr(v, "isoformat") and v not in ([], {})}
    )

    assert saved.status_code == 302, saved.context and saved.context["adminform"].form.errors
    assert client.get(saved["Location"]).status_code == 400


def test_no_page_of_a_row_shows_a_hash(get):
    for model in {model for model, _ in OWN}:
        row = filled(model)
        for below in ("", f"{row.pk}/change/", f"{row.pk}/history/"):
            response = get(model, below)
            assert response.status_code in (200, 302)
            assert HASH not in response.content.decode()


def test_no_admin_lists_searches_sorts_or_offers_a_secret_column():
    request = RequestFactory().get("/")
    request.user = User(username="admin", is_superuser=True, is_active=True, is_staff=True)

    for model, site_admin in admin.site._registry.items():
        if model is User:
            continue  # Django shows the algorithm and the first letters, and refuses to filter.
        names = [
            *site_admin.get_list_display(request),
            *site_admin.get_search_fields(request),
            *site_admin.get_ordering(request),
            *site_admin.get_readonly_fields(request),
            *(site_admin.get_sortable_by(request) or ()),
            *site_admin.get_list_filter(request),
            *flatten_fieldsets(site_admin.get_fieldsets(request)),
            site_admin.date_hierarchy or "",
        ]
        for name in names:
            field = name[0] if isinstance(name, tuple | list) else name
            assert not secret_columns.is_secret(str(field).lstrip("^=@")), site_admin


class TestAnAdminOfTheProject:
    """A project may register its own admin for a generated model, without the classes of ours."""

    @pytest.fixture(autouse=True)
    def registered(self, settings: Any) -> None:
        site = admin.site.__class__()  # The class of unfold.
        site.register(WeatherStationDevice, admin.ModelAdmin)
        settings.ROOT_URLCONF = (path("admin/", site.urls),)

    def test_does_not_filter_by_a_hash(self, get):
        filled(WeatherStationDevice)

        for column in secret_columns.of(WeatherStationDevice):
            for lookup in ("regex", "iregex", "startswith", "contains", "gt", "lt", "range", "iexact", "md5"):
                answers = {
                    get(WeatherStationDevice, **{f"{column}__{lookup}": value})["Location"]
                    for value in ("^a", "^x")
                }
                assert answers == {"/admin/fleet/weatherstationdevice/?e=1"}

    def test_has_no_hash_in_its_form(self, get):
        row = filled(WeatherStationDevice)
        page = get(WeatherStationDevice, f"{row.pk}/change/").content.decode()

        assert "STATION-001" in page
        assert HASH not in page


def test_a_secret_column_is_compared_as_a_whole_only():
    assert "WHERE" in str(Account.objects.filter(password_hash=HASH).query)
    for refused in ("regex", "startswith", "gt", "lower__contains"):
        with pytest.raises(FieldError, match="Unsupported lookup"):
            Account.objects.filter(**{f"password_hash__{refused}": "a"})


def test_a_secret_column_is_a_text_column_in_migrations():
    for field, options in (
        (SecretField(max_length=64), {"max_length": 64}),
        (SecretField(max_length=64, editable=False), {"max_length": 64, "editable": False}),
    ):
        assert field.deconstruct()[1:] == ("django.db.models.CharField", [], options)
        assert field.clone().deconstruct() == field.deconstruct()
        assert not field.editable
