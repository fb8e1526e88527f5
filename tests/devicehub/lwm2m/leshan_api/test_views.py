"""`POST /leshan_api/...`: the bridge of flownexus, with the token of a broker that names the dialect `leshan`."""

import base64
import json
import sqlite3
import threading
from collections import Counter
from unittest.mock import Mock

import psycopg
import pytest
from django.db import OperationalError
from prometheus_client.parser import text_string_to_metric_families

from authsvc import broker_tokens, caches, logs
from authsvc.freshness import reader
from authsvc.freshness.reader import DatabaseAway
from authsvc.models import Broker, Denial
from authsvc.operation import denials, metrics, notes
from devicehub import provisioning
from devicehub.ingest import limits, posted
from devicehub.ingest.replay import replay, waiting
from devicehub.lwm2m import adoption, names
from devicehub.lwm2m.leshan_api import views
from devicehub.lwm2m.models import Endpoint, Event, Resource
from devicehub.lwm2m.signals import event_recorded
from devicehub.models import QuarantinedMessage
from rig.entrances import both_entrances
from rig.hub import eventually
from rig.messages import fresh

pytestmark = pytest.mark.sqlite_first

EP = "urn:imei:100000000000000"
DATE = 1795933949432
BRIDGE = {
    "Connection": "Upgrade, HTTP2-Settings",
    "HTTP2-Settings": "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
    "Upgrade": "h2c",
    "User-Agent": "Java-http-client/17.0.15",
    "Content-Type": "application/json",
}


@pytest.fixture
def token(transactional_db):
    """Return the token of a bridge."""
    views._failures._found.clear()
    return broker_tokens.create_broker("bridge", ["leshan"])[1]


@pytest.fixture
def endpoint(transactional_db):
    return Endpoint.objects.create(device_id=EP)


@pytest.fixture
def post(send, token):
    """Return a function that posts a body as the bridge does, its token in the path, and returns the reply."""

    def post(shape, content, *, entrance="asgi", url=None, headers=BRIDGE, **options):
        body = content if isinstance(content, bytes) else json.dumps(content, indent=2).encode()
        path = f"/k/{token}/leshan_api/resource/{shape}" if url is None else url
        return send(entrance, "POST", path, content=body, headers=headers, **options)

    return post


def resource(number=5700, kind="FLOAT", value="24.5"):
    return {"kind": "singleResource", "id": number, "type": kind, "value": value}


def single(node=None, object_id=3303, ep=EP):
    return {"ep": ep, "obj_id": object_id, "val": resource() if node is None else node}


def registration(number, date):
    return single(resource(number, "TIME", date), 10240)


def stored():
    return {one.path: one.value for one in Resource.objects.all()}


# --- Values


@both_entrances
def test_a_notification_of_the_bridge_is_stored(post, endpoint, entrance):
    """The bridge knows objects 0-7 and 21 only: others are bytes of TLV."""
    reply = post("single", single(resource(kind="OPAQUE", value="4038800000000000")), entrance=entrance)

    assert (reply.status_code, reply.json()) == (201, {"outcome": "stored"})
    assert stored() == {"3303/0/5700": 24.5}
    event = Event.objects.get()
    assert (event.type, fresh(endpoint).status) == ("notification", "online")


DEVICE = {
    "kind": "obj",
    "id": 3,
    "instances": [
        {
            "kind": "instance",
            "id": 0,
            "resources": [
                resource(0, "STRING", "Zephyr"),
                {"kind": "multiResource", "id": 7, "type": "INTEGER", "values": {"0": "3800", "1": "5000"}},
                resource(13, "TIME", 1700000000000),
                {
                    "kind": "multiResource",
                    "id": 22,
                    "type": "OBJLNK",
                    "values": {"0": {"objectId": 4, "objectInstanceId": 0}},
                },
                resource(4, "NONE", None),
            ],
        }
    ],
}


@pytest.mark.parametrize("nodes", [{"/3": DEVICE}, DEVICE], ids=["a map", "a node"])
def test_a_whole_object_is_one_event(post, endpoint, nodes):
    reply = post("composite", {"ep": EP, "val": nodes})

    assert reply.status_code == 201
    assert {path: str(value) for path, value in stored().items()} == {
        "3/0/0": "Zephyr",
        "3/0/7/0": "3800",
        "3/0/7/1": "5000",
        "3/0/13": "1700000000",
        "3/0/22/0": "4:0",
    }
    assert Event.objects.get().values().count() == 5


def test_several_objects_of_a_composite_are_one_event(post, endpoint):
    nodes = {
        "/3": DEVICE,
        "/3303/1/5700": resource(),
        "/3304/0/5700": None,
        "/4/0/8": resource(8, "UNSIGNED_INTEGER", "7"),
    }
    assert post("composite", {"ep": EP, "val": nodes}).status_code == 201

    assert Event.objects.count() == 1
    assert (stored()["3303/1/5700"], len(stored())) == (24.5, 7)


def test_a_value_that_cannot_be_read_costs_no_other(post, endpoint):
    nodes = {"/3303/0/5700": resource(value="NaN"), "/3304/0/5700": resource(value="1.0E-5")}
    reply = post("composite", {"ep": EP, "val": nodes})

    assert (reply.status_code, reply.json()["outcome"]) == (201, "partial")
    assert reply.json()["notes"][0].startswith("/3303/0/5700: ")
    assert stored() == {"3304/0/5700": 1e-5}


@pytest.mark.parametrize(
    ("shape", "content", "said"),
    [
        ("single", b"{", "is not JSON"),
        ("single", {"ep": EP}, "val is not a node"),
        ("composite", {"ep": EP, "val": {"/3": {"kind": "obj", "id": 4, "instances": []}}}, "has another id"),
        ("composite", {"ep": EP, "val": {"3303": resource()}}, "is not a path"),
        ("composite", {"ep": EP, "val": {"/3": None}}, "holds no value"),
        ("single", single(resource(value="warm")), "'warm'"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_a_reason(post, endpoint, shape, content, said):
    reply = post(shape, content)

    assert reply.status_code == 400
    assert said in reply.json()["error"]
    assert stored() == {}
    assert not Event.objects.exists()
    assert not QuarantinedMessage.objects.exists()


@both_entrances
def test_a_body_that_is_too_long_is_refused(post, endpoint, entrance):
    body = b" " * (1 << 20) + json.dumps(single()).encode()

    assert post("single", body, entrance=entrance).status_code == 413
    assert stored() == {}


# --- Registrations


def test_a_registration_is_followed_to_its_end(post, endpoint):
    post("single", registration(0, DATE))
    now = fresh(endpoint)
    assert (now.registered, now.lifetime, now.status, now.registered_at.timestamp()) == (
        True,
        None,
        "online",
        DATE / 1000,
    )
    began = now.last_registration
    post("single", registration(2, DATE))
    assert fresh(endpoint).last_registration > began
    post("single", registration(1, DATE))

    now = fresh(endpoint)
    assert (now.registered, now.status) == (False, "offline")
    details = Event.objects.order_by("pk").values_list("type", "detail")
    assert list(details) == [("registration", one) for one in ("registered", "updated", "deregistered")]
    assert stored() == {}, "10240 is not an object"


@pytest.mark.parametrize("numbers", [(1, 0), (0, 1)], ids=["old end first", "new start first"])
def test_a_returning_endpoint_is_registered_in_any_order(post, endpoint, numbers):
    post("single", registration(0, DATE))
    for number in numbers:
        post("single", registration(number, DATE if number else DATE + 11_759))

    now = fresh(endpoint)
    assert (now.registered, now.status) == (True, "online")


@pytest.mark.parametrize("late", [0, 2])
def test_what_arrives_after_the_end_of_its_registration_changes_nothing(post, endpoint, late):
    post("single", registration(0, DATE))
    post("single", registration(1, DATE + 5_000))
    post("single", registration(late, DATE + 5_000))

    assert (fresh(endpoint).registered, fresh(endpoint).status) == (False, "offline")
    post("single", registration(0, DATE + 9_000))
    assert fresh(endpoint).registered


# --- Endpoints that are not there


def test_an_unknown_endpoint_goes_to_the_quarantine_and_can_be_replayed(post):
    reply = post("single", single(ep="Tür 7/a"))

    assert reply.status_code == 202
    assert (reply.json()["outcome"], reply.json()["reason"]) == ("failed", "unknown_device")
    assert not Endpoint.objects.exists()
    row = QuarantinedMessage.objects.get()
    assert (row.reason, row.user_properties) == ("unknown_device", {"endpoint": "Tür 7/a"})
    Endpoint.objects.create(device_id="T-r-7-a-e868a87a1837beaa", endpoint_name="Tür 7/a")
    replay(waiting())
    assert stored() == {"3303/0/5700": 24.5}


def test_a_kept_message_is_not_that_of_a_later_endpoint_with_another_name(post):
    """Its topic has the device id that was free then."""
    post("single", single(ep="pump"))
    later = Endpoint.objects.create(device_id="pump", endpoint_name="urn:imei:1")

    report = replay(waiting())
    assert stored() == {}
    assert "another device than the message names" in report.lines()[1]

    later.endpoint_name = "pump"
    later.save()
    replay(waiting())
    assert stored() == {"3303/0/5700": 24.5}


def test_an_unknown_endpoint_is_adopted_if_the_operator_allows_it(post, settings):
    settings.DEVICEHUB_LWM2M_ADOPT = True
    adoption.allowance.clear()

    assert post("single", registration(0, DATE)).status_code == 201
    adopted = Endpoint.objects.get()
    assert (adopted.endpoint_name, adopted.registered, adopted.mqtt_password_hash) == (EP, True, "")


def test_a_body_that_cannot_be_read_makes_no_device(post, settings):
    settings.DEVICEHUB_LWM2M_ADOPT = True
    adoption.allowance.clear()

    assert post("single", single(resource(value="warm"))).status_code == 400
    assert not Endpoint.objects.exists()


def test_an_endpoint_with_a_name_of_its_own_is_found_by_that(post):
    Endpoint.objects.create(device_id="pump", endpoint_name=EP)

    assert post("single", single()).status_code == 201
    assert Resource.objects.get().device.device_id == "pump"


@pytest.mark.parametrize("adopts", [False, True])
@pytest.mark.parametrize(
    ("device_id", "own_name", "name"),
    [
        ("pump", "urn:imei:1", "pump"),
        ("T-r-7-a-e868a87a1837beaa", "Tür 7/a", "T-r-7-a-e868a87a1837beaa"),
        ("T-r-7-a-e868a87a1837beaa", "T-r-7-a-e868a87a1837beaa", "Tür 7/a"),
    ],
)
def test_a_name_that_is_the_device_id_of_another_endpoint_is_unknown(
    post, settings, device_id, own_name, name, adopts
):
    settings.DEVICEHUB_LWM2M_ADOPT = adopts
    adoption.allowance.clear()
    Endpoint.objects.create(device_id=device_id, endpoint_name=own_name)

    assert post("single", single(ep=name)).status_code == 202
    assert stored() == {}
    row = QuarantinedMessage.objects.get()
    assert (row.reason, row.user_properties) == ("unknown_device", {"endpoint": name})
    replay(waiting())
    assert stored() == {}
    assert post("single", single(ep=own_name)).status_code == 201


def test_ids_that_were_taken_on_purpose_are_no_ids_of_a_name(post):
    for _ in range(3):
        free = names.device_ids(["Tür 7/a"])["Tür 7/a"]
        Endpoint.objects.create(device_id=free, endpoint_name=free)

    assert post("single", single(ep="Tür 7/a")).status_code == 202
    assert stored() == {}


def test_a_disabled_endpoint_goes_to_the_quarantine(post, endpoint):
    provisioning.disable(endpoint)

    assert post("single", single()).status_code == 202
    assert QuarantinedMessage.objects.get().reason == "disabled_device"


def test_an_endpoint_that_sends_too_much_is_told_so(post, endpoint, settings):
    settings.DEVICEHUB_RATE_LIMIT = "2/m"
    limits.limiter.clear()
    replies = [post("single", single()) for _ in range(3)]
    limits.limiter.clear()

    assert [reply.status_code for reply in replies] == [201, 201, 429]
    assert int(replies[2].headers["Retry-After"]) > 0
    assert replies[2].json()["reason"] == "rate_limited"


def test_a_database_that_cannot_store_is_answered_with_503(post, endpoint, monkeypatch):
    def fail(*_, **__):
        raise OperationalError("database is locked")

    monkeypatch.setattr(posted, "pipeline", fail)
    reply = post("single", single())

    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")


def test_a_post_whose_outcome_is_not_known_in_time_is_answered_with_503(post, endpoint, monkeypatch):
    def hang(_):
        raise posted.UnknownOutcome

    monkeypatch.setattr(posted, "store", hang)
    reply = post("single", single())

    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert "may be stored" in reply.json()["error"]


@pytest.mark.parametrize(
    "error", [DatabaseAway("away"), sqlite3.OperationalError("away"), psycopg.Error("away")]
)
def test_a_database_that_does_not_tell_the_brokers_is_answered_with_503(post, endpoint, monkeypatch, error):
    async def fail(*_, **__):
        raise error

    monkeypatch.setattr(reader, "fetch", fail)
    caches.clear_caches()
    reply = post("single", single())

    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert reply.json()["error"] == "the database does not answer"


def test_a_slow_receiver_does_not_delay_the_answer(post, endpoint):
    going_on, received = threading.Event(), []

    def receive(event, **_):
        going_on.wait(10)
        received.append((event.type, threading.current_thread().name))

    event_recorded.connect(receive)
    try:
        assert post("single", single()).status_code == 201
        assert received == []
        going_on.set()
        assert eventually(lambda: received == [("notification", "announcer")])
    finally:
        event_recorded.disconnect(receive)


# --- Tokens


def basic(token):
    return "Basic " + base64.b64encode(f"bridge:{token}".encode()).decode()


@both_entrances
@pytest.mark.parametrize(
    "form",
    [
        lambda token: ("/leshan_api/resource/single", {"Authorization": f"Bearer {token}"}),
        lambda token: ("/leshan_api/resource/single", {"Authorization": basic(token)}),
        lambda token: ("/leshan_api/resource/single", {"X-Broker-Secret": token}),
        lambda token: (f"/leshan_api/resource/single?k={token}", {}),
        lambda token: (f"/k/{token}/leshan_api/resource/single", {}),
    ],
    ids=["bearer", "basic", "header", "query", "path"],
)
def test_a_token_may_be_anywhere(post, endpoint, token, form, entrance):
    url, headers = form(token)

    assert post("single", single(), url=url, headers=headers, entrance=entrance).status_code == 201


@pytest.mark.parametrize(
    ("dialects", "admitted"),
    [([], False), (["go-auth"], False), (["leshan"], True), (["emqx", "leshan"], True)],
)
def test_only_a_broker_that_names_leshan_may_post(post, endpoint, dialects, admitted):
    token = broker_tokens.create_broker("another", dialects)[1]
    reply = post("single", single(), url=f"/k/{token}/leshan_api/resource/single")

    assert reply.status_code == (201 if admitted else 401)


def test_a_bridge_may_ask_no_question(send, token):
    reply = send("asgi", "POST", f"/mqtt/k/{token}/go-auth/user", json={"username": "x", "password": "y"})

    assert reply.json()["error"] == "denied"


@pytest.mark.parametrize(
    "url",
    ["/leshan_api/resource/single", "/leshan_api/resource/single?k=", "/k/wrong/leshan_api/resource/single"],
)
def test_without_a_valid_token_nothing_is_stored(post, endpoint, url):
    reply = post("single", single(), url=url)

    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert stored() == {}
    denials.flush()
    denial = Denial.objects.get()
    assert (denial.dialect, denial.reason) == ("leshan", "unknown_caller")


def test_two_different_tokens_are_none(post, endpoint, token):
    other = broker_tokens.create_broker("another", ["leshan"])[1]
    url = f"/k/{token}/leshan_api/resource/single"

    assert post("single", single(), url=url, headers={"Authorization": f"Bearer {other}"}).status_code == 401


def test_a_revoked_token_ends(post, endpoint, token):
    assert post("single", single()).status_code == 201
    broker_tokens.revoke_tokens(Broker.objects.get())

    assert post("single", single()).status_code == 401


def test_an_address_that_guesses_tokens_is_told_to_wait(post, endpoint, token, monkeypatch):
    monkeypatch.setattr(views, "MAX_TOKENS", 3)
    guesses = [f"/k/{number}/leshan_api/resource/single" for number in range(5)]
    replies = [post("single", single(), url=url) for url in guesses]

    assert [reply.status_code for reply in replies] == [401] * 3 + [429] * 2
    assert int(replies[4].headers["Retry-After"]) > 0
    assert post("single", single()).status_code == 201, "a valid token is never refused for others"


def test_the_use_of_a_bridge_is_noted(post, endpoint):
    post("single", single())
    notes.flush_all()

    assert Broker.objects.get().uses.get().count == 1


def posts(send):
    """Return the numbers of posts, by `path/outcome/reason`."""
    families = text_string_to_metric_families(send("asgi", "GET", "/metrics").text)
    [family] = [one for one in families if one.name == "devicehub_leshan_api_posts"]
    labels = ("path", "outcome", "reason")
    return Counter(
        {
            "/".join(map(one.labels.get, labels)): int(one.value)
            for one in family.samples
            if one.name != family.name
        }
    )


def test_posts_are_counted_by_path_and_outcome(send, post, endpoint, monkeypatch):
    before = posts(send)
    post("single", single())
    post("single", single())
    post("composite", {"ep": EP, "val": {"/3303/0/5700": resource(value="NaN"), "/3304/0/5700": resource()}})
    post("single", single(ep="stranger"))
    post("single", b"{")
    post("composite", b" " * (1 << 20) + b"{}")
    post("single", single(), url="/k/wrong/leshan_api/resource/single")
    send("asgi", "GET", "/leshan_api/resource/composite")
    monkeypatch.setattr(posted, "pipeline", Mock(side_effect=OperationalError))
    post("single", single())

    assert posts(send) - before == {
        "single/stored/": 2,
        "composite/partial/": 1,
        "single/failed/unknown_device": 1,
        "single/refused/unreadable": 1,
        "composite/refused/too_long": 1,
        "single/refused/unknown_token": 1,
        "composite/refused/not_post": 1,
        "single/refused/database": 1,
    }


def test_the_posts_of_all_processes_are_added_up():
    """One of an earlier version may have left its numbers too."""
    name, series = "devicehub_leshan_api_posts", [["single", "stored", ""], 2]
    processes = [
        {"counters": {name: [series]}},
        {"counters": {name: [series, [["single", "refused", "x"], 1]]}},
        {},
    ]

    found = metrics._Collector(processes)._of_counter(metrics._counters[name])

    assert {tuple(one.labels.values()): one.value for one in found.samples} == {
        ("single", "stored", ""): 4,
        ("single", "refused", "x"): 1,
    }


@both_entrances
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_a_post_is_answered(send, token, method, entrance):
    reply = send(entrance, method, f"/k/{token}/leshan_api/resource/single")

    assert (reply.status_code, reply.headers["Allow"]) == (405, "POST")


def test_logs_show_no_token(token):
    for text in (
        f"Not Found: /leshan_api/resource/single?k={token}",
        f"POST /k/{token}/leshan_api/resource/single",
    ):
        assert token not in logs._without_secrets(text)
        assert "leshan_api" in logs._without_secrets(text)


def test_django_logs_no_refusal_with_its_path(send, token, caplog):
    for url in (f"/k/{token}/leshan_api/resource/single", "/k/wrong/leshan_api/resource/single"):
        assert send("django", "POST", url, content=b"{").status_code in (400, 401)

    assert not [record for record in caplog.records if record.name == "django.request"]


def test_a_plain_site_is_not_redirected(send, token, endpoint, settings):
    """The bridge follows no redirect, and loses what it cannot send."""
    settings.SECURE_SSL_REDIRECT = True

    for prefix in ("", f"/k/{token}"):
        reply = send("asgi", "POST", f"{prefix}/leshan_api/resource/single", json=single())
        assert reply.status_code in (201, 401)


@both_entrances
@pytest.mark.parametrize("odd", ["a%00b", "%FF%FE", "%ED%A0%80", "a%0Ab", "x" * 3_000, "%2e%2e"])
def test_an_odd_token_in_the_path_is_refused(post, entrance, odd):
    reply = post("single", single(), entrance=entrance, url=f"/k/{odd}/leshan_api/resource/single")

    assert reply.status_code in (400, 401, 404)
    assert not QuarantinedMessage.objects.exists()
