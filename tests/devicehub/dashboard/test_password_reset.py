"""A new password by mail: the link, its limits, and the settings of the mail server."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from authsvc.models import AuditEntry
from config import settings as project_settings
from devicehub.dashboard import password_reset
from devicehub.models import SignIn
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_only, pytest.mark.pages]
NEW = {"new_password1": "plants-9-trees", "new_password2": "plants-9-trees"}
PAGES = ("/password/reset/", "/password/reset/sent/", "/password/reset/MQ/abc-def/", "/password/reset/done/")


@pytest.fixture
def offered(settings) -> None:
    settings.DEVICEHUB_PASSWORD_RESET = True
    password_reset._sent.clear()


@pytest.fixture
def operator(offered) -> User:
    return person("operator", password="grows-tomatoes-9", email="mara@example.org")


def request(client: Client, email: str = "mara@example.org") -> list[mail.EmailMessage]:
    """Request a link, and return all mails so far."""
    response = client.post("/password/reset/", {"email": email})
    assert response["Location"] == "/password/reset/sent/"
    password_reset._mailer.submit(lambda: None).result()
    return mail.outbox


def test_without_a_mail_server_there_is_no_link_and_no_page(client: Client):
    for page in ("/login/", "/admin/login/"):
        assert "Forgot it?" not in client.get(page).content.decode()
    assert {client.get(url).status_code for url in PAGES} == {404}


def test_the_sign_in_links_to_it(client: Client, offered):
    for page in ("/login/", "/admin/login/"):
        assert 'href="/password/reset/"' in client.get(page).content.decode()
    assert {client.get(url).status_code for url in PAGES} == {200}


def test_the_link_in_the_mail_leads_to_a_new_password_once(client: Client, operator):
    other = Client()
    other.force_login(operator)
    (message,) = request(client)
    (link,) = re.findall(r"http://testserver(/password/reset/\S+)", message.body)

    form = client.get(link)["Location"]
    page = client.get(form).content.decode()
    assert "Choose a new password" in page
    assert 'value="operator" autocomplete="username"' in page  # For the password manager of the browser.
    assert client.post(form, NEW)["Location"] == "/password/reset/done/"

    operator.refresh_from_db()
    assert operator.check_password("plants-9-trees")
    assert other.get("/").status_code == 302
    assert not SignIn.objects.exists()
    assert AuditEntry.objects.get(action="user_password_reset").actor == "operator"
    again = client.get(link, follow=True).content.decode()
    assert "This link does not work any more" in again


def test_an_unknown_address_gets_the_same_answer_and_no_mail(client: Client, operator):
    assert request(client, "nobody@example.org") == []


def test_mails_to_an_address_and_for_a_client_are_limited(client: Client, operator):
    for _ in range(password_reset.MOST + 3):
        sent = request(client)
    assert len(sent) == password_reset.MOST

    for number in range(password_reset.MOST):
        request(client, f"unknown-{number}@example.org")
    assert not password_reset._has_room("to new@example.org", "for 127.0.0.1")
    assert password_reset._has_room("to new2@example.org", "for 192.0.2.1")


def test_a_weak_password_is_refused_at_its_field(client: Client, operator):
    (message,) = request(client)
    (link,) = re.findall(r"http://testserver(/password/reset/\S+)", message.body)

    page = client.post(
        client.get(link)["Location"], {"new_password1": "1234", "new_password2": "1234"}
    ).content.decode()

    assert 'id="id_new_password2_error"' in page


def test_the_url_of_the_mail_server_is_read():
    found = project_settings.mail("smtp+ssl://us%40er:p%2Fw@mail.example.org")

    assert (found["EMAIL_HOST_USER"], found["EMAIL_HOST_PASSWORD"]) == ("us@er", "p/w")
    assert (found["EMAIL_PORT"], found["EMAIL_USE_SSL"], found["EMAIL_USE_TLS"]) == (465, True, False)
    assert not project_settings.mail("")["DEVICEHUB_PASSWORD_RESET"]


@pytest.mark.parametrize(
    "url", ["mail.example.org", "http://u:hidden@mail", "smtp://u:hidden@mail:x", "smtp+tls://"]
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url):
    with pytest.raises(ImproperlyConfigured, match="EMAIL_URL cannot be read") as caught:
        project_settings.mail(url)

    assert "hidden" not in str(caught.value)
