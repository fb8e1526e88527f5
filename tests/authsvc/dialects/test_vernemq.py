"""VerneMQ: hooks, and the answer for each filter of a subscription."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from authsvc import policy
from authsvc.dialects.base import JSON
from rig.oracles import reads_as_allow, reads_as_deny
from rig.questions import good

pytestmark = pytest.mark.sqlite_first  # Its questions send the SQL of test_cases.py.

# ---------------------------------------------------------------- VerneMQ

HOOK = b"vernemq-hook"


class TestVerneMQ:
    @pytest.fixture
    def subscribe(self, question, station):
        """Return a function that returns the answer to one SUBSCRIBE of the station."""

        def one(topics, hook="auth_on_subscribe", **more):
            fields = good("vernemq/subscribe", station) | {"topics": topics} | more
            return question("vernemq/subscribe", fields, headers=[(HOOK, hook.encode())])

        return one

    @pytest.fixture
    def mixed(self, station, neighbour):
        """Return filters of one packet, with their QoS, and whether each is granted."""
        own, shared = station.topic("cmd"), f"$share/g/{station.topic('cmd')}"
        return [
            (neighbour.topic("cmd"), 1, False),
            (own, 2, True),
            ("#", 0, False),
            (own, 0, True),
            (shared, 1, True),
            ("a/#/b", 2, False),
            ("", 0, False),
            (station.topic("data"), 1, False),
            ("$share/g/#", 1, False),
        ]

    def test_each_filter_is_answered_for_itself_in_mqtt_3(self, subscribe, mixed):
        """The answer has all filters in their order, because the broker matches them by position."""
        reply = subscribe([{"topic": topic, "qos": qos} for topic, qos, _ in mixed])

        assert reply.status == 200
        assert json.loads(reply.body) == {
            "result": "ok",
            "topics": [{"topic": topic, "qos": qos if granted else 128} for topic, qos, granted in mixed],
        }

    def test_each_filter_is_answered_for_itself_in_mqtt_5(self, subscribe, mixed):
        more = {"no_local": True, "rap": False, "retain_handling": "send_retain"}
        topics = [{"topic": topic, "qos": qos} | more for topic, qos, _ in mixed]

        reply = subscribe(topics, "auth_on_subscribe_m5", properties={"p_subscription_id": 1})

        assert reply.status == 200
        answered = [{"topic": topic, "qos": qos if granted else 135} for topic, qos, granted in mixed]
        assert json.loads(reply.body) == {"result": "ok", "modifiers": {"topics": answered}}

    @pytest.mark.parametrize("hook", ["auth_on_subscribe", "auth_on_subscribe_m5"])
    def test_all_granted_and_all_refused_need_no_list(self, subscribe, station, neighbour, hook):
        own, other = ({"topic": who.topic("cmd"), "qos": 1} for who in (station, neighbour))

        assert json.loads(subscribe([own] * 3, hook).body) == {"result": "ok"}
        assert reads_as_deny("vernemq/subscribe", subscribe([other] * 3, hook))
        assert reads_as_deny("vernemq/subscribe", subscribe([other], hook))
        assert reads_as_deny("vernemq/subscribe", subscribe([own, other], hook, username="stranger"))
        assert reads_as_deny("vernemq/subscribe", subscribe([own, other], hook, client_id=neighbour.username))

    @pytest.mark.parametrize("hook", ["auth_on_subscribe", "auth_on_subscribe_m5"])
    def test_an_invalid_list_of_filters_is_denied_as_a_whole(self, subscribe, station, hook):
        """An empty list in an answer would allow everything, so it is neither accepted nor sent."""
        own = {"topic": station.topic("cmd"), "qos": 1}
        for topics in (
            [],
            {},
            None,
            "",
            station.topic("cmd"),
            own,
            [own, station.topic("cmd")],
            [own, {}],
            [own, []],
            [own, None],
            [own, {"qos": 1}],
            [own, own | {"topic": None}],
            [own, own | {"topic": ["a"]}],
            [[own]],
            [own] * 1_001,
        ):
            assert reads_as_deny("vernemq/subscribe", subscribe(topics, hook)), topics
        assert json.loads(subscribe([own] * 1_000, hook).body) == {"result": "ok"}

    @pytest.mark.parametrize("topic", ["\x00", "a\x00", "\ud800", "x\udfff"])
    def test_an_invalid_text_is_never_granted(self, subscribe, station, topic):
        own = {"topic": station.topic("cmd"), "qos": 1}

        reply = subscribe([own, {"topic": topic, "qos": 1}])

        assert reads_as_deny("vernemq/subscribe", reply) or [
            entry["qos"] for entry in json.loads(reply.body)["topics"]
        ] == [1, 128]

    @pytest.mark.parametrize("qos", ["1", 1.0, True, False, None, -1, 3, 128, 135, [1], {}, 1e999])
    def test_an_invalid_qos_is_denied(self, subscribe, station, qos):
        own = {"topic": station.topic("cmd"), "qos": 1}

        assert reads_as_allow("vernemq/subscribe", subscribe([own]))
        assert reads_as_deny("vernemq/subscribe", subscribe([own, own | {"qos": qos}]))
        assert reads_as_deny("vernemq/subscribe", subscribe([own, {"topic": own["topic"]}]))

    @pytest.mark.parametrize("about", ["register", "publish", "subscribe"])
    def test_the_header_names_the_hook_of_the_url(self, question, post, entrance, world, station, about):
        path = f"vernemq/{about}"
        fields = good(path, station)
        wrong = {
            "",
            "auth_on_",
            "x",
            about,
            f"auth_on_{about} x",
            f"AUTH_ON_{about}",
            f"auth_on_{about}_m5_m5",
        }
        wrong |= {f"auth_on_{other}" for other in ("register", "publish", "subscribe") if other != about}
        wrong |= {f"{hook}_m5" for hook in wrong} | {f"on_{about}", f"auth_on_{about}_m6"}

        for hook in (f"auth_on_{about}", f"auth_on_{about}_m5"):
            assert reads_as_allow(path, question(path, fields, headers=[(HOOK, hook.encode())]))
            twice = [(HOOK, hook.encode()), (HOOK, hook.encode())]
            assert reads_as_deny(path, question(path, fields, headers=twice))
        for hook in wrong - {f"auth_on_{about}_m5"}:
            assert reads_as_deny(path, question(path, fields, headers=[(HOOK, hook.encode())])), hook
        missing = post(
            entrance,
            f"/mqtt/k/{world.token}/{path}",
            headers=[(b"content-type", JSON.encode())],
            body=json.dumps(fields).encode(),
        )
        assert reads_as_deny(path, missing)

    @pytest.mark.parametrize("about", ["register", "publish", "subscribe"])
    def test_a_stranger_gets_no_answer_to_a_hook(self, post, entrance, station, about):
        path = f"vernemq/{about}"
        headers = [(b"content-type", JSON.encode()), (HOOK, f"auth_on_{about}".encode())]
        body = json.dumps(good(path, station)).encode()

        for url in (f"/mqtt/{path}", f"/mqtt/k/x/{path}"):
            reply = post(entrance, url, headers=headers, body=body)
            assert (reply.status, json.loads(reply.body)) == (403, {"result": {"error": "not_allowed"}})

    def test_no_answer_may_be_cached(self, post, entrance, world, station, neighbour, monkeypatch):
        """The `post` fixture checks every reply; here is one of each kind, including a fault."""
        own, other = ({"topic": who.topic("cmd"), "qos": 1} for who in (station, neighbour))
        headers = [(b"content-type", JSON.encode()), (HOOK, b"auth_on_subscribe")]
        seen = []
        for topics, proof in (
            ([own], world.token),
            ([own, other], world.token),
            ([other], world.token),
            ([], "x"),
        ):
            body = json.dumps(good("vernemq/subscribe", station) | {"topics": topics}).encode()
            seen.append(
                post(entrance, f"/mqtt/k/{proof}/vernemq/subscribe", headers=headers, body=body).status
            )
        monkeypatch.setattr(policy, "current", None)
        monkeypatch.setattr(policy, "cached", None)
        seen.append(post(entrance, f"/mqtt/k/{world.token}/vernemq/subscribe", headers=headers).status)

        assert seen == [200, 200, 200, 403, 503]

    def test_absent_credentials_are_null(self, question, station):
        fields = good("vernemq/register", station)
        for absent in ({"username": None}, {"password": None}, {"username": None, "password": None}):
            assert reads_as_deny("vernemq/register", question("vernemq/register", fields | absent))

    def test_a_webhook_is_not_a_get(self, question, station):
        """A GET with all fields of the body of a POST."""
        fields = {k: v for k, v in good("vernemq/register", station).items() if type(v) is str}

        reply = question("vernemq/register", body=b"", method="GET", query=urlencode(fields).encode())

        assert reads_as_deny("vernemq/register", reply)
