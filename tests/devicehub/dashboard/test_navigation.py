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
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]


def greenhouses(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Greenhouses")


# A project with a page of its own, and without the admin.
urlpatterns = [
    path("devices/", include("devicehub.urls")),
    path("greenhouses/", greenhouses, name="greenhouses"),
]


@pytest.fixture(autouse=True)
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with the entries of the shell; a test registers others, which are removed afterwards."""
    own = {name: navigation._entries[name] for name in (navigation.START, "admin:index")}
    monkeypatch.setattr(navigation, "_entries", own)


@pytest.fixture
def viewer(client: Client) -> User:
    user = person("viewer", password="irrelevant here")
    client.force_login(user)
    return user


def shown(client: Client, url: str = "/") -> list[tuple[str, str]]:
    """Return the address and the label of each link of the rail."""
    page = client.get(url).content.decode()
    (rail,) = re.findall(r'<nav id="nav"[^>]*>(.*?)</nav>', page, re.DOTALL)
    return re.findall(r'<a href="([^"#]+)"[^>]*>.*?<span class="word">([^<]*)</span>', rail)


def test_a_viewer_sees_the_overview_and_staff_the_admin_too(client, viewer):
    assert shown(client) == [("/", "Overview")]

    viewer.is_staff = True
    viewer.save()
    assert shown(client) == [("/", "Overview"), ("/admin/", "Administration")]


def test_the_page_at_hand_is_marked(client, viewer):
    page = client.get("/?q=STATION").content.decode()

    assert '<a href="/" title="Overview" aria-current="page">' in page


@override_settings(ROOT_URLCONF=__name__)
def test_a_page_below_an_entry_marks_it_and_the_start_page_only_itself(rf, viewer):
    register("Greenhouses", "greenhouses", order=20, also="devicehub:account")

    def current(path: str) -> list[str]:
        request = rf.get(path)
        request.user = viewer
        return [
            link.label for group in navigation.menu(request).groups for link in group.links if link.is_current
        ]

    assert current("/devices/") == ["Overview"]
    assert current("/greenhouses/7/") == ["Greenhouses"]
    assert current("/devices/account/") == ["Greenhouses"], "the same pages at another address"
    assert current("/devices/elsewhere/") == []


def test_a_stranger_sees_no_navigation(client):
    assert "<nav" not in client.get("/login/").content.decode()


@override_settings(ROOT_URLCONF=__name__)
def test_an_app_adds_an_entry_in_its_place(client, viewer):
    register("Greenhouses", "greenhouses", order=5)

    assert shown(client, "/devices/") == [("/greenhouses/", "Greenhouses"), ("/devices/", "Overview")]


def test_groups_stand_in_the_order_of_work_and_others_after_them(rf, viewer):
    register("Fields", "devicehub:token", order=1, group="Plant")
    register("Denials", "devicehub:login", order=1, group=navigation.ACCESS)
    register("My keys", "devicehub:logout", order=1, group=navigation.ACCOUNT)
    request = rf.get("/")
    request.user = viewer

    menu = navigation.menu(request)

    assert [group.name for group in menu.groups] == ["", "Access", "Plant"]
    assert [link.label for link in menu.account] == ["My keys"]


def test_a_badge_is_shown_where_there_is_something_to_do(client, viewer):
    register("Denials", "devicehub:login", order=20, badge=lambda request: navigation.Badge(1200, "bad"))
    register("Alarms", "devicehub:logout", order=21, badge=lambda request: navigation.Badge(0, "bad"))

    page = client.get("/").content.decode()

    assert re.findall(r'<span class="count ([a-z]*)">([^<]*)</span>', page) == [("bad", "1,200")]


@override_settings(ROOT_URLCONF=__name__)
def test_a_page_that_the_project_leaves_out_has_no_entry(client, viewer):
    viewer.is_staff = True
    viewer.save()
    register("Firmware", "firmware", order=20)

    assert shown(client, "/devices/") == [("/devices/", "Overview")]


def test_an_entry_says_who_sees_it(client, viewer):
    register("Topics", "devicehub:token", order=20, visible=lambda request: request.user.username == "viewer")
    register("Secrets", "token-of-others", order=21, visible=lambda request: False)

    assert shown(client) == [("/", "Overview"), ("/api/token", "Topics")]


def test_a_label_is_no_markup(client, viewer):
    register("<b>Bold</b>", "devicehub:token", order=20)

    assert "&lt;b&gt;Bold&lt;/b&gt;" in client.get("/").content.decode()


def test_the_navigation_takes_no_query(rf, viewer, django_assert_num_queries):
    request = rf.get("/")
    request.user = User.objects.get(pk=viewer.pk)

    with django_assert_num_queries(0):
        assert [link.label for link in navigation.menu(request).groups[0].links] == ["Overview"]


def test_a_page_without_a_request_or_without_users_has_no_entry(rf):
    assert devicehub_navigation.navigation(Context()) == navigation.Menu()
    assert navigation.menu(rf.get("/")) == navigation.Menu()
    assert "<nav" not in render_to_string("devicehub/base.html")
