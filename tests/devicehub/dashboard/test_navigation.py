"""The navigation of the pages: a list that apps add to, and each user sees the entries that are allowed."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.template import Context
from django.template.loader import render_to_string
from django.test import Client, override_settings
from django.urls import include, path

from devicehub.dashboard import navigation
from devicehub.dashboard.navigation import register
from devicehub.templatetags import devicehub_navigation

pytestmark = pytest.mark.django_db


def greenhouses(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Greenhouses")


# A project with a page of its own, and without the admin.
urlpatterns = [
    path("devices/", include("devicehub.urls")),
    path("greenhouses/", greenhouses, name="greenhouses"),
]


@pytest.fixture(autouse=True)
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register entries, which are removed afterwards."""
    monkeypatch.setattr(navigation, "_entries", dict(navigation._entries))


@pytest.fixture
def viewer(client: Client) -> User:
    user = User.objects.create_user("viewer", password="irrelevant here")
    client.force_login(user)
    return user


def shown(client: Client, url: str = "/") -> list[tuple[str, str]]:
    """Return the address and the label of each link of the navigation."""
    page = client.get(url).content.decode()
    (nav,) = re.findall(r'<nav aria-label="Site">(.*?)</nav>', page, re.DOTALL)
    return re.findall(r'<a href="([^"]*)"[^>]*>([^<]*)</a>', nav)


def test_a_viewer_sees_the_fleet_and_staff_the_admin_too(client, viewer):
    assert shown(client) == [("/", "Fleet")]

    viewer.is_staff = True
    viewer.save()
    assert shown(client) == [("/", "Fleet"), ("/admin/", "Admin")]


def test_the_page_at_hand_is_marked(client, viewer):
    page = client.get("/?q=STATION").content.decode()

    assert '<a href="/" aria-current="page">Fleet</a>' in page


def test_a_stranger_sees_no_navigation(client):
    assert '<nav aria-label="Site">' not in client.get("/login/").content.decode()


@override_settings(ROOT_URLCONF=__name__)
def test_an_app_adds_an_entry_in_its_place(client, viewer):
    register("Greenhouses", "greenhouses", order=5)
    register("Fields", "greenhouses", order=30)

    assert shown(client, "/devices/") == [("/devices/", "Fleet"), ("/greenhouses/", "Fields")]


@override_settings(ROOT_URLCONF=__name__)
def test_a_page_that_the_project_leaves_out_has_no_entry(client, viewer):
    viewer.is_staff = True
    viewer.save()
    register("Firmware", "firmware", order=20)

    assert shown(client, "/devices/") == [("/devices/", "Fleet")]


def test_an_entry_says_who_sees_it(client, viewer):
    register("Topics", "token", order=20, visible=lambda request: request.user.username == "viewer")
    register("Secrets", "token-of-others", order=21, visible=lambda request: False)

    assert shown(client) == [("/", "Fleet"), ("/api/token", "Topics")]


def test_a_label_is_no_markup(client, viewer):
    register("<b>Bold</b>", "token", order=20)

    assert "&lt;b&gt;Bold&lt;/b&gt;" in client.get("/").content.decode()


def test_the_navigation_takes_no_query(rf, viewer, django_assert_num_queries):
    request = rf.get("/")
    request.user = User.objects.get(pk=viewer.pk)

    with django_assert_num_queries(0):
        assert [link.label for link in navigation.links(request)] == ["Fleet"]


def test_a_page_without_a_request_or_without_users_has_no_entry(rf):
    assert devicehub_navigation.navigation(Context()) == []
    assert navigation.links(rf.get("/")) == []
    assert "<nav" not in render_to_string("devicehub/base.html")
