"""NanoMQ: several filters in one question, and injected fields."""

from __future__ import annotations

import itertools

import pytest

from authsvc.dialects.base import FORM, JSON
from rig.oracles import reads_as_allow, reads_as_deny
from rig.questions import by_access, good

pytestmark = pytest.mark.sqlite_first  # Its questions send the SQL of test_cases.py.

# ---------------------------------------------------------------- NanoMQ


class TestNanoMQ:
    @pytest.fixture
    def may(self, question, station):
        """Return a function that asks for the station by JSON and by form, whose answers must agree."""

        def one(access, topic, **more):
            fields = good("nanomq/acl", station) | {"access": access, "topic": topic} | more
            json_reply, form_reply = (question("nanomq/acl", fields, content_type=t) for t in (JSON, FORM))
            assert json_reply == form_reply
            assert reads_as_allow("nanomq/acl", json_reply) or reads_as_deny("nanomq/acl", json_reply)
            return reads_as_allow("nanomq/acl", json_reply)

        return one

    def test_every_filter_of_a_packet_must_be_allowed(self, may, station, neighbour):
        own, shared = station.topic("cmd"), f"$share/g/{station.topic('cmd')}"

        assert may("1", own)
        assert may("1", f"{own},{own}")
        assert may("1", f"{own},{shared}")
        for other in (
            neighbour.topic("cmd"),
            "#",
            "+/+/+/cmd",
            "$SYS/#",
            station.topic("data"),
            f" {own}",
            f"$share/g/{neighbour.topic('cmd')}",
            "$share/g/#",
        ):
            for order in itertools.permutations([own, own, other]):
                assert not may("1", ",".join(order)), order

    @pytest.mark.parametrize("topic", ["", ",", ",,", "{},", ",{}", "{},,{}", "{},\x00", "{0}%2C#", "{0};#"])
    def test_an_empty_part_is_no_filter(self, may, station, topic):
        assert not may("1", topic.format(station.topic("cmd"), station.topic("cmd")))

    def test_a_thousand_filters_and_no_more(self, may, station):
        own = station.topic("cmd")

        assert may("1", ",".join([own] * 1_000))
        assert not may("1", ",".join([own] * 1_001))
        assert not may("1", ",".join([own] * 999 + ["#"]))
        assert not may("1", "," * 60_000)

    def test_a_comma_in_a_published_topic_parts_it_too(self, may, station, neighbour):
        """Both look the same, so each part must be allowed; a grant never covers a topic with a comma."""
        own = station.topic("data")

        assert may("2", own)
        for topic in (
            f"{own},x",
            f"x,{own}",
            f"{own},",
            f",{own}",
            f"{own},{neighbour.topic('data')}",
            f"{own},#",
            f"{station.topic('')},data",
        ):
            assert not may("2", topic), topic

    def test_a_superuser_is_held_to_every_part_as_well(self, may, root):
        who = {"username": root.username, "clientid": root.username}

        assert may("1", "#,$SYS/#,a/+", **who)
        assert not may("1", "#,$CONTROL/x", **who)
        assert not may("1", "#,a/#/b", **who)
        assert not may("2", "a,b/+", **who)

    def test_injected_fields_are_a_deny(self, question, station, root):
        """Before 0.25.2 values in a form were not encoded, so a client could append fields to its name."""
        fields = good("nanomq/acl", station)
        for name, value in {"username": root.username, "topic": "#", "access": "1", "clientid": "x"}.items():
            body = f"clientid={station.username}&username={station.username}&{name}={value}&" + "&".join(
                f"{k}={v}" for k, v in fields.items() if k not in ("clientid", "username")
            )
            assert reads_as_deny("nanomq/acl", question("nanomq/acl", body=body.encode(), content_type=FORM))

    @by_access
    def test_any_other_access_is_denied(self, question, station, access):
        fields = good("nanomq/acl", station) | {"access": access}

        assert reads_as_deny("nanomq/acl", question("nanomq/acl", fields))
