"""Adoption of endpoints that a Leshan server names."""

import pytest

from authsvc.models import AuditEntry
from devicehub.lwm2m import adoption
from devicehub.lwm2m.adoption import Allowance, adopt
from devicehub.lwm2m.models import Endpoint

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def full_allowance():
    adoption.allowance.clear()


def names():
    return sorted(Endpoint.objects.values_list("endpoint_name", flat=True))


def test_nothing_is_adopted_by_default():
    adopt(["urn:imei:1"])

    assert names() == []


def test_an_adopted_endpoint_has_no_credentials_and_an_entry_in_the_audit(settings):
    settings.DEVICEHUB_LWM2M_ADOPT = True
    adopt(["urn:imei:1", "Tür 7/a", "urn:imei:1"])
    adopt(["urn:imei:1"])

    assert names() == ["Tür 7/a", "urn:imei:1"]
    endpoint = Endpoint.objects.get(endpoint_name="Tür 7/a")
    assert endpoint.device_id == "T-r-7-a-e868a87a1837beaa"
    assert (endpoint.mqtt_username, endpoint.mqtt_password_hash, endpoint.api_key) == (None, "", None)
    entries = AuditEntry.objects.filter(action="device_created").values_list(
        "actor_kind", "actor", "object_key"
    )
    assert sorted(entries) == [
        ("system", "adoption", "lwm2m/T-r-7-a-e868a87a1837beaa"),
        ("system", "adoption", "lwm2m/urn:imei:1"),
    ]


def test_a_name_that_cannot_be_one_is_left_out(settings):
    settings.DEVICEHUB_LWM2M_ADOPT = True
    adopt(["", "x" * 256, "a\x00b", "\ud800", "b"])

    assert names() == ["b"]


def test_a_name_whose_device_id_is_taken_is_left_out(settings):
    settings.DEVICEHUB_LWM2M_ADOPT = True
    Endpoint.objects.create(device_id="urn:imei:1", endpoint_name="another")
    adopt(["urn:imei:1", "urn:imei:2"])

    assert names() == ["another", "urn:imei:2"]


def test_a_stranger_cannot_fill_the_table(settings, monkeypatch):
    settings.DEVICEHUB_LWM2M_ADOPT = True
    monkeypatch.setattr(adoption, "MOST", 3)
    adopt([f"urn:imei:{number}" for number in range(5)])
    adopt(["urn:imei:9"])

    assert names() == ["urn:imei:0", "urn:imei:1", "urn:imei:2"]


def test_endpoints_that_exist_take_nothing_of_the_allowance(settings, monkeypatch):
    settings.DEVICEHUB_LWM2M_ADOPT = True
    monkeypatch.setattr(adoption, "MOST", 2)
    for name in ("urn:imei:1", "urn:imei:1", "urn:imei:1", "urn:imei:2"):
        adopt([name])

    assert names() == ["urn:imei:1", "urn:imei:2"]


def test_the_allowance_comes_back_after_a_minute():
    allowance = Allowance()

    assert [allowance.take(0.0) for _ in range(adoption.MOST + 1)].count(False) == 1
    assert not allowance.take(59.0)
    assert allowance.take(60.0)
