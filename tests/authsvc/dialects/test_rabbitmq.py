"""RabbitMQ: the queues of a client id, the exchange, the virtual host, routing keys."""

from __future__ import annotations

import itertools

import pytest

from authsvc.dialects.base import FORM
from rig.questions import good

pytestmark = pytest.mark.sqlite_first  # Its questions send the SQL of test_cases.py.

# ---------------------------------------------------------------- RabbitMQ


class TestRabbitMQ:
    @pytest.fixture
    def may(self, question):
        """Return a function that asks whether a client is allowed; None leaves a field out."""

        def one(path, who, **more):
            fields = {k: v for k, v in (good(f"rabbitmq/{path}", who) | more).items() if v is not None}
            reply = question(f"rabbitmq/{path}", fields, content_type=FORM)
            assert reply.body in (b"allow", b"deny")
            return reply.body == b"allow"

        return one

    def test_a_device_uses_the_queues_of_its_client_id(self, may, station):
        names = ("mqtt-subscription-{}qos0", "mqtt-subscription-{}qos1", "mqtt-will-{}")
        for name, permission in itertools.product(names, ("configure", "write", "read")):
            name = name.format(station.username)
            assert may("resource", station, resource="queue", name=name, permission=permission)

    def test_other_queues_are_not_its(self, may, station, neighbour):
        for name in (
            "",
            "mqtt-subscription-qos0",
            "mqtt-subscription-{0}",
            "mqtt-subscription-{0}qos2",
            "mqtt-subscription-{0}qos10",
            "mqtt-subscription-{0}qos0 ",
            "mqtt-subscription-{0}qos0\n",
            "mqtt-subscription-{1}qos0",
            "mqtt-subscription-{0}{1}qos0",
            "MQTT-SUBSCRIPTION-{0}QOS0",
            "mqtt-will-{1}",
            "mqtt-will-",
            "mqtt-will-{0}1",
            "{0}",
            "amq.topic",
            "mqtt-subscription-*qos0",
            "#",
        ):
            name = name.format(station.username, neighbour.username)
            assert not may("resource", station, resource="queue", name=name, permission="read"), name

    @pytest.mark.parametrize("client_id", [None, ""])
    def test_without_a_client_id_no_queue_is_the_callers(self, may, station, client_id):
        """An AMQP login with the password of a device must not bind a queue to all topics."""
        for name in ("mqtt-subscription-{}qos0", "mqtt-will-{}", "mqtt-subscription-qos0", "mqtt-will-"):
            name = name.format(station.username)
            assert not may(
                "resource", station, resource="queue", name=name, permission="configure", client_id=client_id
            )

    def test_there_is_one_exchange(self, may, station):
        assert may("resource", station, permission="write")
        assert may("resource", station, permission="read")
        for permission in ("configure", "admin", "", "WRITE", "write "):
            assert not may("resource", station, permission=permission)
        for name in ("", "amq.default", "amq.fanout", "amq.topic ", "AMQ.TOPIC", "mqtt"):
            assert not may("resource", station, name=name)
            assert not may("topic", station, name=name)
        for kind in ("topic", "vhost", "Exchange", "queue", "exchange ", ""):
            assert not may("resource", station, resource=kind)

    def test_there_is_one_virtual_host(self, may, station):
        for path, vhost in itertools.product(
            ("user", "vhost", "resource", "topic"), ("", "other", "//", "%2F", "/ ")
        ):
            assert may(path, station)
            assert not may(path, station, vhost=vhost)

    def test_a_client_id_is_bound_where_it_is_said(self, may, station, neighbour):
        for path in ("user", "vhost", "resource", "topic"):
            assert may(path, station)
            assert may(path, station, client_id=None)
            for client_id in (neighbour.username, "", "x"):
                assert not may(path, station, client_id=client_id)

    def test_the_variable_map_names_the_same_client(self, may, station, neighbour):
        for name in ("variable_map.client_id", "variable_map.username"):
            assert may("topic", station, **{name: station.username})
            assert not may("topic", station, **{name: neighbour.username})
        assert may("topic", station, **{"client_id": None, "variable_map.client_id": station.username})
        assert not may("topic", station, **{"client_id": None, "variable_map.client_id": neighbour.username})

    @pytest.mark.parametrize(
        ("permission", "keys"),
        [
            (
                "write",
                "things.weatherstation.*.data things.weatherstation.STATION-001.# # "
                "things.weatherstation.STATION-001.cmd things/weatherstation/STATION-001/data "
                "things.weatherstation.STATION-001.data. things..weatherstation.STATION-001.data "
                ".things.weatherstation.STATION-001.data things.weatherstation.STATION-002.data",
            ),
            (
                "read",
                "things.weatherstation.*.cmd things.weatherstation.+.cmd things.weatherstation.STATION-001.* "
                "things.weatherstation.STATION-00*.cmd # *.*.*.* things.weatherstation.STATION-001.data "
                "things.weatherstation.STATION-001.# $share.g.#",
            ),
            ("configure", "things.weatherstation.STATION-001.data things.weatherstation.STATION-001.cmd"),
        ],
    )
    def test_a_routing_key_that_is_not_the_stations_is_denied(self, may, station, permission, keys):
        for routing_key in keys.split(" "):
            assert not may("topic", station, permission=permission, routing_key=routing_key), routing_key

    def test_virtual_host_and_exchange_are_settings(self, may, station, settings):
        settings.AUTHSVC_RABBITMQ_VHOST, settings.AUTHSVC_RABBITMQ_EXCHANGE = "iot", "mqtt"

        assert not may("topic", station)
        assert may("topic", station, vhost="iot", name="mqtt")
