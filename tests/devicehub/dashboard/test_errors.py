"""The pages of errors, which work without a database, and the line of text for callers without a browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import OperationalError
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import path
from structlog.testing import capture_logs

from config.urls import handler400, handler403, handler404, handler500
from config.urls import urlpatterns as of_the_site
from devicehub.dashboard.policy import HEADER, POLICY

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HANDLERS = (handler400, handler403, handler404, handler500)


def raising(error: Exception) -> Any:
    def view(_request: HttpRequest) -> Any:
        raise error

    return view


urlpatterns = [
    path("odd", raising(SuspiciousOperation("odd"))),
    path("denied", raising(PermissionDenied("south is not one of your sites."))),
    path("refused", raising(PermissionDenied())),
    path("broken", raising(RuntimeError("secret detail"))),
    path("away", raising(OperationalError("host=db password=secret"))),
    *of_the_site,
]


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


@pytest.mark.parametrize(
    ("url", "status", "text"),
    [
        ("/odd", 400, "This request cannot be read"),
        ("/denied", 403, "south is not one of your sites."),
        ("/refused", 403, "An administrator can change that."),
        ("/devices/weatherstation/STATION-1O4/", 404, "There is no such page"),
        ("/broken", 500, "Something failed on our side"),
        ("/away", 503, "The database does not answer"),
    ],
)
@override_settings(ROOT_URLCONF=__name__)
def test_each_error_says_what_is_wrong_and_what_to_do(client: Client, url, status, text):
    page, line = client.get(url, headers=HTML), client.get(url)

    assert (page.status_code, line.status_code) == (status, status)
    assert page[HEADER] == POLICY
    assert page["Cache-Control"] == "no-store"
    assert text in page.content.decode()
    assert 'href="/"' in page.content.decode()
    assert line["Content-Type"].startswith("text/plain")
    assert text in line.content.decode()
    assert "secret" not in page.content.decode() + line.content.decode()


@override_settings(ROOT_URLCONF=__name__)
def test_an_error_of_ours_is_found_in_the_log_by_its_id(client: Client):
    with capture_logs() as logs:
        page = client.get("/broken?q=1", headers=HTML).content.decode()

    (line,) = [entry for entry in logs if entry["event"] == "page.failed"]
    assert re.search(rf'<code id="error-id">{line["id"]}</code>', page)
    assert line["error"] == "RuntimeError"
    assert 'href="/broken?q=1"' in page


@override_settings(ROOT_URLCONF=__name__)
def test_a_page_without_the_database_asks_to_come_back(client: Client):
    response = client.get("/away", headers=HTML)

    assert response["Retry-After"] == "10"


def test_a_missing_page_offers_a_search_for_its_last_part(client: Client):
    page = client.get("/devices/weatherstation/%3CSTATION-1O4%3E/", headers=HTML).content.decode()

    assert 'name="q" type="search" value="&lt;STATION-1O4&gt;"' in page


def test_an_expired_form_says_so(db):
    User.objects.create_user("viewer", password="looks-around")
    client = Client(enforce_csrf_checks=True)

    response = client.post("/login/", {"username": "viewer", "password": "looks-around"}, headers=HTML)

    assert response.status_code == 403
    assert "This form has expired" in response.content.decode()
    assert "looks-around" not in response.content.decode()
