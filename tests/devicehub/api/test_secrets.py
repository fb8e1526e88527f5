"""The guard of the folder finds a secret in an answer, whichever column or action it is from."""

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client

from authsvc.models import Account, Broker
from devicehub import provisioning
from devicehub.api import keys
from devicehub.kinds.registry import registry
from rig.programs import Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_only]


def leak(monkeypatch, text, answer=HttpResponse):
    monkeypatch.setattr(keys.OneKey, "get", lambda *_, **__: answer(text))
    return program(person("ada")).get("/api/keys/1/")


@pytest.fixture
def device():
    """Return a device and its credentials in clear text."""
    return provisioning.create(registry.get("weatherstation"), "STATION-1")


@pytest.mark.parametrize("name", ["mqtt_password_hash", "api_key"])
def test_a_hash_or_a_digest_of_a_device_is_found(device, name, monkeypatch):
    with pytest.raises(pytest.fail.Exception, match="holds a secret"):
        leak(monkeypatch, f'{{"x": "{getattr(device[0], name)}"}}')


@pytest.mark.parametrize("name", ["mqtt_password", "api_key"])
def test_a_secret_that_was_made_before_is_found(device, name, monkeypatch):
    with pytest.raises(pytest.fail.Exception, match="holds a secret"):
        leak(monkeypatch, device[1][name])


def test_a_token_of_a_broker_and_a_password_of_an_account_are_found(monkeypatch):
    broker = Broker(name="mosquitto")
    texts = [broker.issue_token(), broker.token_digest]
    broker.save()
    account, ada = Account.objects.create(username="backend"), person("ada")
    texts.append(provisioning.rotate_account(account, valid_until=None))
    for text in texts:
        monkeypatch.setattr(keys.OneKey, "get", lambda *_, text=text, **__: HttpResponse(text))
        with pytest.raises(pytest.fail.Exception, match="holds a secret"):
            Program(user=ada).get("/api/keys/1/")


def test_a_part_of_a_stream_is_searched_too(device, monkeypatch):
    with pytest.raises(pytest.fail.Exception, match="holds a secret"):
        list(
            leak(monkeypatch, [b"a", device[1]["api_key"].encode()], StreamingHttpResponse).streaming_content
        )


def test_among_many_secrets_one_is_found(device, monkeypatch):
    for number in range(120):
        provisioning.create(registry.get("weatherstation"), f"S-{number}")
    with pytest.raises(pytest.fail.Exception, match="holds a secret"):
        leak(monkeypatch, f'["{device[0].api_key}"]')


def test_an_answer_without_a_secret_passes(device, monkeypatch):
    """Also the one that makes one."""
    assert leak(monkeypatch, "STATION-1").status_code == 200
    made = Client().get("/api/")
    assert made.status_code == 401
