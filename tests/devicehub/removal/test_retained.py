"""Retained messages of deleted and disabled devices, and the grants with which ingest clears them."""

import random
from contextlib import ExitStack
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from structlog.testing import capture_logs

from authsvc.models import Grant
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import QuarantinedMessage, RetainedTopic
from devicehub.mqtt import BrokerAddress, Connection, Listener, Outgoing
from devicehub.removal import disabled, retained
from devicehub.worker.loop import _message
from fleet.models import WeatherStationDevice, WeatherStationMessage
from rig import servers
from rig.hub import eventually, listener
from rig.telemetry import TOPICS, sql, topics_to_clear


class TestGrants:
    """The account of ingest may publish to topics of devices only if an operator granted it."""

    @pytest.fixture
    def grant(self, db):
        """Return a function that creates the account and returns its filters for publishing."""

        def create(*options):
            call_command("create_account", "ingest", "--ingest", *options, stdout=StringIO())
            rows = Grant.objects.filter(subject="key:account/ingest", actions="publish")
            return {row.filter for row in rows if "weatherstation" in row.filter}

        return create

    def test_without_the_option_it_may_publish_commands_only(self, grant):
        assert grant() == {"things/weatherstation/+/cmd"}

    def test_with_it_it_may_clear_all_four(self, grant):
        assert grant("--clear-retained") == {
            f"things/weatherstation/+/{about}" for about in ("cmd", "data", "reply", "status")
        }

    def test_an_account_that_exists_gets_them_too(self, grant):
        grant()

        assert len(grant("--clear-retained", "--grant-only")) == 4

    def test_it_needs_an_ingest_account(self, db):
        with pytest.raises(CommandError, match="--clear-retained needs --ingest"):
            call_command("create_account", "backend", "--clear-retained")


@pytest.fixture
def broker(tmp_path, needs_real, settings):
    """Run a mosquitto that lets no client publish replies, and set MQTT_URL to it; return its port."""
    rules = tmp_path / "rules"
    rules.write_text(
        "topic readwrite things/+/+/data\ntopic readwrite things/+/+/status\ntopic readwrite things/+/+/cmd\n"
    )
    rules.chmod(0o600)
    with ExitStack() as stack:
        try:
            port = stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", f"acl_file {rules}\n"))
        except servers.MissingServer as missing:
            needs_real(missing)
        settings.MQTT_URL = f"mqtt://127.0.0.1:{port}"
        yield port


def retained_at(port):
    """Return the retained messages of the broker below things/, as {topic: payload}."""
    found = {}
    reader = Connection(
        BrokerAddress("127.0.0.1", port), f"reader-{random.random()}", on_message=found.__setitem__
    )
    reader.subscribe("things/#")
    reader.subscribe("nothing/#")  # The answer to this comes after the retained messages.
    reader.close()
    return found


class TestRetained:
    @pytest.mark.parametrize("ended", ["disabled", "deleted"])
    def test_what_clears_a_topic_is_no_message_of_the_device(self, station, ended):
        """All subscribers get the empty message too, also ingest."""
        if ended == "disabled":
            WeatherStationDevice.objects.update(is_active=False)
        else:
            station.delete()

        outcomes = pipeline([Message(topic, b"", timezone.now()) for topic in TOPICS])

        assert outcomes == ["retained"] * 4
        assert not QuarantinedMessage.objects.exists()
        assert not WeatherStationMessage.objects.exists()

    def test_an_empty_message_of_an_active_device_is_still_reported(self, station):
        assert pipeline([Message(TOPICS[1], b"", timezone.now())]) == ["failed"]
        assert QuarantinedMessage.objects.count() == 1

    @pytest.mark.servers
    def test_what_clears_the_topics_of_a_device_made_again_says_nothing_of_it(self, station, broker):
        """Ingest receives them, although the new device has never connected."""
        station.delete()
        again = WeatherStationDevice.objects.create(device_id="STATION-001")
        listener = Listener(BrokerAddress("127.0.0.1", broker), "ingest-1", ["things/#"])
        listener.start()
        try:
            assert retained.clear() == 3
            heard = eventually(lambda: listener.waiting == 3 and listener.take(9, 0))
            outcomes = pipeline([_message(delivery) for delivery in heard])
        finally:
            listener.stop()

        assert outcomes == ["retained"] * 3
        again.refresh_from_db()
        assert (again.status, again.last_message_at) == ("offline", None)

    def test_an_empty_message_is_no_sign_of_life(self, station):
        """With MQTT 3.1.1 our empty messages look like those of others."""
        pipeline([Message(TOPICS[1], b"", timezone.now())])

        station.refresh_from_db()
        assert (station.connected, station.last_seen) == (False, None)

    def publish(self, port, *topics):
        device = Connection(BrokerAddress("127.0.0.1", port), "device")
        for topic in topics:
            device.publish(Outgoing(topic, b"{}", retain=True))
        device.close()

    @pytest.mark.servers
    def test_the_retained_messages_of_a_disabled_device_are_cleared(self, station, neighbour, broker):
        theirs = "things/weatherstation/STATION-002/data"
        self.publish(broker, *(t for t in TOPICS if "reply" not in t), theirs)
        assert len(retained_at(broker)) == 4
        station.is_active = False
        station.save()

        assert disabled.clear() == 3

        assert set(retained_at(broker)) == {theirs}

    @pytest.mark.servers
    def test_what_the_broker_refuses_stays_with_its_error_and_comes_again_later(self, station, broker):
        station.delete()
        begin = timezone.now()

        assert retained.clear() == 3

        (left,) = RetainedTopic.objects.all()
        assert left.topic.endswith("/reply")
        assert "Not authorized" in left.error
        for minutes in (1, 2, 4):
            wait = left.next_at - begin
            assert timedelta(minutes=minutes) <= wait < timedelta(minutes=minutes + 1)
            assert retained.clear() == 0
            RetainedTopic.objects.update(next_at=begin)
            retained.clear()
            left.refresh_from_db()

    @pytest.fixture
    def refused(self, broker):
        """Return a function that lets the broker refuse all topics a number of times; it returns the dropped topics."""

        def clear(times):
            with capture_logs() as logged:
                for _ in range(times):
                    RetainedTopic.objects.update(next_at=timezone.now())
                    retained.clear()
            return [line["topic"] for line in logged if line["event"] == "retained.given_up"]

        return clear

    @pytest.mark.servers
    def test_a_topic_that_the_broker_always_refuses_is_dropped_with_a_line_in_the_log(self, station, refused):
        station.delete()

        assert refused(4) == []
        assert refused(1) == ["things/weatherstation/STATION-001/reply"]
        assert topics_to_clear() == []

    @pytest.mark.servers
    def test_that_a_broker_was_away_does_not_count_as_refused(self, station, refused):
        station.delete()
        RetainedTopic.objects.update(attempts=30, error="no connection to it")

        assert refused(4) == []
        assert RetainedTopic.objects.get().attempts == 4

    @pytest.mark.servers
    def test_a_new_request_begins_to_count_again(self, station, refused):
        station.delete()
        refused(4)
        WeatherStationDevice.objects.create(device_id="STATION-001").delete()

        row = RetainedTopic.objects.get(topic__endswith="reply")
        assert (row.attempts, row.error) == (0, "")
        assert refused(4) == []

    def test_a_topic_is_retried_after_the_broker_was_away(self, station, settings):
        settings.MQTT_URL = f"mqtt://127.0.0.1:{servers.free_port()}"
        station.delete()

        assert retained.clear() == 0

        assert {row.attempts for row in RetainedTopic.objects.all()} == {1}
        assert all("no connection to" in row.error for row in RetainedTopic.objects.all())

    @pytest.mark.servers
    @pytest.mark.parametrize("is_noticed", [False, True])
    def test_a_device_that_is_enabled_again_keeps_what_is_retained(self, station, broker, is_noticed):
        self.publish(broker, TOPICS[1])
        station.is_active = False
        station.save()
        if is_noticed:
            disabled.notice()
        station.is_active = True
        station.save()

        assert disabled.clear() == 0

        assert topics_to_clear() == []
        assert set(retained_at(broker)) == {TOPICS[1]}

    @pytest.mark.servers
    def test_another_device_of_the_same_id_does_not(self, station, broker):
        self.publish(broker, TOPICS[0])
        station.delete()
        WeatherStationDevice.objects.create(device_id="STATION-001")

        assert retained.clear() == 3

        assert retained_at(broker) == {}


@pytest.mark.sqlite_first
@pytest.mark.servers
@pytest.mark.django_db(transaction=True)
def test_a_worker_clears_what_is_retained_of_a_device_that_sql_disabled(station, neighbour, broker, tmp_path):
    """The worker checks every 15 seconds."""
    theirs = "things/weatherstation/STATION-002/data"
    worker = listener(tmp_path, f"mqtt://127.0.0.1:{broker}")
    device = Connection(BrokerAddress("127.0.0.1", broker), "device")
    worker.start()
    try:
        for topic in (TOPICS[1], theirs):
            device.publish(Outgoing(topic, b'{"temperature": 1}', retain=True))
        assert set(retained_at(broker)) == {TOPICS[1], theirs}

        sql(f"UPDATE fleet_weatherstationdevice SET is_active = false WHERE id = {station.pk}")

        assert eventually(lambda: set(retained_at(broker)) == {theirs}, 20)
    finally:
        device.close()
        worker.stop()
