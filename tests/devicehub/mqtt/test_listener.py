"""`manage.py listen_mqtt` as it runs, against a real mosquitto: nothing is acknowledged before it is stored.

Every worker connects through a `wire.Wire`, which records the packets of both sides.
They use MQTT 5 and a group, as by default.
"""

import gc
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from authsvc.models import Grant
from devicehub import provisioning
from devicehub.management.commands import listen_mqtt
from devicehub.models import QuarantinedMessage
from devicehub.mqtt import BrokerAddress, Connection, Outgoing
from devicehub.worker import process
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from rig import servers, wire
from rig.hub import ROOT, environment, eventually
from rig.wire import ACCEPTED, DISCONNECT, Wire, kill, pretender, stop, suback

MESSAGES = WeatherStationMessage._meta.db_table
DROPPED = "$SYS/broker/publish/messages/dropped"
STOP = 5  # Seconds that a worker may take to stop.

# Workers are processes of their own, and each writes down its session: its row must not outlive the test.
pytestmark = [pytest.mark.usefixtures("transactional_db"), pytest.mark.servers]


@pytest.fixture
def broker(tmp_path, needs_real):
    """Yield the port of a mosquitto without sessions."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(tmp_path / "mosquitto"))
        except servers.MissingServer as missing:
            needs_real(missing)


@pytest.fixture
def listen(broker, transactional_db, tmp_path):
    """Return the function that starts a subscribed worker: `with listen() as worker`. The block ends it."""
    return wire.workers(broker, tmp_path)


@pytest.fixture
def publish(broker, station):
    """Return the function that publishes a reading, or bytes, of our station and waits for the broker's ack."""
    device = Connection(BrokerAddress("127.0.0.1", broker), "device")

    def one(payload, about="data", **options):
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        device.publish(Outgoing(station.topic(about), body, **options))

    one.connection = device
    yield one
    device.close()


def temperatures():
    return sorted(WeatherStationReading.objects.values_list("temperature", flat=True))


@contextmanager
def database_locked():
    """Hold a lock with which no other process can store a message."""
    with transaction.atomic():  # On SQLite this takes the writer's lock (IMMEDIATE).
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {MESSAGES} IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def database_broken():
    """Rename the table of messages, so that storing fails."""
    rename(MESSAGES, f"{MESSAGES}_away")
    try:
        yield
    finally:
        rename(f"{MESSAGES}_away", MESSAGES)


def rename(old, new):
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


# --- Acknowledged after the commit


def test_messages_are_acknowledged_in_their_order_once_they_are_stored(listen, publish, station):
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    properties.CorrelationData = b"c-\xff"
    properties.UserProperty = ("trace", "t-1")
    with listen() as worker:
        publish({"temperature": 0, "humidity": 40})

        assert eventually(worker.wire.acknowledged) == worker.wire.published()
        # Without a wait: acknowledged messages are stored.
        row = WeatherStationMessage.objects.get()
        assert row.payload_json == {"temperature": 0, "humidity": 40}
        assert temperatures() == [0]
        device = WeatherStationDevice.objects.get(pk=station.device.pk)
        assert device.last_seen is not None
        assert (device.connected, device.status) == (True, "online")

        for number in range(1, 60):
            publish({"temperature": number})
        publish.connection._client.publish(
            station.topic("data"), b'{"temperature": 60}', 1, properties=properties
        )
        assert eventually(lambda: len(worker.wire.acknowledged()) == 61)
        assert worker.wire.acknowledged() == worker.wire.published()
        assert temperatures() == list(range(61))
        row = WeatherStationMessage.objects.latest("id")
        assert row.content_type == "application/json"
        assert row.correlation_id == "c-\ufffd"
        assert row.user_properties == {"trace": "t-1"}


def test_nothing_is_acknowledged_while_the_database_is_locked(listen, publish):
    with listen() as worker:
        with database_locked():
            publish({"temperature": 1})
            assert eventually(worker.wire.published)
            time.sleep(1)
            assert worker.wire.acknowledged() == []

        assert eventually(worker.wire.acknowledged)
        assert temperatures() == [1]


@pytest.mark.parametrize("trouble", [database_locked, pytest.param(database_broken, marks=pytest.mark.long)])
def test_a_worker_killed_before_it_stored_loses_nothing(listen, publish, trouble):
    with listen() as worker, trouble():
        for number in range(5):
            publish({"temperature": number})
        assert eventually(worker.wire.published)
        time.sleep(0.3)
        kill(worker)
        assert worker.wire.acknowledged() == []
    assert temperatures() == []

    with listen():
        assert eventually(lambda: len(temperatures()) >= 5)
        time.sleep(0.3)
        assert temperatures() == [0, 1, 2, 3, 4]


def test_a_worker_outlives_a_database_that_cannot_store(listen, publish):
    """It has the messages sent again and stores each once, without a restart."""
    with listen() as worker:
        publish({"temperature": 0})
        assert eventually(temperatures) == [0]
        with database_broken():
            for number in range(1, 30):
                publish({"temperature": number})
            assert eventually(lambda: "ingest.not_stored" in worker.log.read_text())
            assert len(worker.wire.acknowledged()) == 1

        assert eventually(lambda: len(temperatures()) >= 30)
        time.sleep(0.5)
        assert temperatures() == list(range(30))
        assert worker.poll() is None
        # And goes on.
        publish({"temperature": 30})
        assert eventually(lambda: len(temperatures()) == 31)


def test_a_message_that_cannot_be_stored_is_acknowledged_and_kept_and_ends_no_worker(listen, publish, broker):
    with listen() as worker:
        publish(b"not JSON \xff\x00")
        publish.connection.publish(Outgoing("things/weatherstation/STRANGER/data", b"{}"))
        publish(b"", retain=True)
        publish({"temperature": 1})

        assert eventually(temperatures) == [1]
        assert eventually(lambda: len(worker.wire.acknowledged()) == 4)
        rows = QuarantinedMessage.objects.order_by("id").values_list("reason", flat=True)
        assert list(rows) == ["not_json", "unknown_device", "not_json"]
        assert bytes(QuarantinedMessage.objects.earliest("id").payload) == b"not JSON \xff\x00"

        # Nested as deep as the parser allows, and deeper: a message that ends the worker would come again for ever.
        for depth in (500, 950, 990, 1015, 5000):
            publish(b'{"temperature": 1, "x": ' + b"[" * depth + b"]" * depth + b"}")
        publish({"temperature": 2})
        assert eventually(lambda: worker.poll() is not None or 2 in temperatures())
        assert worker.poll() is None, worker.log.read_text()[-2000:]
        assert eventually(lambda: len(worker.wire.acknowledged()) == 10)


# --- Sessions

PLAIN = {"DEVICEHUB_MQTT_GROUP": ""}
OLD = {"DEVICEHUB_MQTT_VERSION": "3.1.1"}


@pytest.mark.sqlite_first
@pytest.mark.parametrize(
    ("spoken", "end"),
    [
        pytest.param({}, kill, id="MQTT 5 shared, killed"),
        pytest.param({}, stop, id="MQTT 5 shared", marks=pytest.mark.long),
        pytest.param(PLAIN, kill, id="MQTT 5, killed", marks=pytest.mark.long),
        pytest.param(OLD | PLAIN, stop, id="MQTT 3.1.1"),
    ],
)
def test_what_is_published_while_the_worker_is_down_is_stored_after_its_start(listen, publish, spoken, end):
    with listen(**spoken) as worker:
        end(worker)
    for number in range(5):
        publish({"temperature": number})

    with listen(**spoken):
        assert eventually(lambda: len(temperatures()) >= 5)
        publish({"temperature": 5})
        assert eventually(lambda: len(temperatures()) >= 6)
        assert temperatures() == [0, 1, 2, 3, 4, 5]


@pytest.mark.sqlite_first
def test_two_workers_share_the_messages(listen, publish):
    with listen("--worker", "1") as one, listen("--worker", "2") as two:
        for number in range(60):
            publish({"temperature": number})

        assert eventually(lambda: len(temperatures()) >= 60)
        time.sleep(0.3)
        assert temperatures() == list(range(60))
        shares = [len(worker.wire.published()) for worker in (one, two)]
        assert sum(shares) == 60
        assert min(shares) > 0


@pytest.mark.sqlite_first
def test_what_a_killed_worker_of_two_held_is_stored_when_it_is_back(listen, publish):
    with listen("--worker", "1") as one:
        with listen("--worker", "2") as two:
            with database_locked():
                for number in range(20):
                    publish({"temperature": number})
                assert eventually(lambda: two.wire.published() and one.wire.published())
                kill(two)
            assert two.wire.acknowledged() == []
        assert eventually(lambda: len(one.wire.acknowledged()) == len(one.wire.published()))

        with listen("--worker", "2"):
            assert eventually(lambda: len(temperatures()) >= 20)
            time.sleep(0.3)
            assert temperatures() == list(range(20))


@pytest.mark.sqlite_first
def test_a_retained_message_is_stored_when_it_comes_and_not_again_at_each_start(listen, publish):
    with listen(**PLAIN):
        publish({"temperature": 1}, retain=True)
        assert eventually(temperatures) == [1]

    with listen(**PLAIN) as worker:
        assert eventually(worker.wire.acknowledged)
        publish({"temperature": 2})
        assert eventually(lambda: len(temperatures()) >= 2)
        assert temperatures() == [1, 2]


# --- Stopping


@pytest.mark.sqlite_first
def test_a_signal_stops_an_idle_worker(listen):
    with listen() as worker:
        code, seconds = stop(worker)

        log = worker.log.read_text()
        assert (code, seconds < STOP) == (0, True), log
        assert "Stopped. 0 stored" in log
        assert "Traceback" not in log
        assert eventually(
            lambda: worker.wire.bodies(DISCONNECT, of_worker=True)
        )  # The worker said goodbye before any time-out.


@pytest.mark.sqlite_first
def test_a_stop_finishes_the_batch_and_the_broker_knows(listen, publish):
    """Otherwise the batch would be stored again, since its messages have no time. More messages arrive meanwhile.

    Closing a socket with unread bytes resets the connection, and acks that are not sent yet are lost.
    """
    total = 200
    quiet = threading.Event()

    def stored():
        return WeatherStationReading.objects.count()

    with listen() as worker:
        chatter = threading.Thread(target=worker.wire.chatter, args=[quiet])
        with database_locked():
            for number in range(total):
                publish({"rainfall": number})
            assert eventually(lambda: len(worker.wire.published()) == total)
            time.sleep(
                1
            )  # On a busy machine the worker reads its first batch later than the wire passed it on.
            worker.send_signal(signal.SIGTERM)
            chatter.start()
            time.sleep(0.2)
        assert worker.wait(STOP) == 0
        quiet.set()
        assert "Traceback" not in worker.log.read_text()
        finished = stored()
        assert finished > 0
        assert eventually(lambda: len(worker.wire.acknowledged()) == finished, seconds=1), (
            f"{finished} stored, {len(worker.wire.acknowledged())} acknowledged"
        )
    chatter.join()
    with listen():
        eventually(lambda: stored() >= total)
        time.sleep(0.3)
        assert sorted(WeatherStationReading.objects.values_list("rainfall", flat=True)) == list(range(total))


def test_a_worker_stops_while_its_database_cannot_store(listen, publish):
    with listen() as worker:
        with database_broken():
            publish({"temperature": 1})
            assert eventually(
                lambda: worker.log.read_text().count("ingest.not_stored") >= 3
            )  # The pauses have reached 2 s.
            code, seconds = stop(worker)
            assert (code, seconds < STOP) == (0, True), worker.log.read_text()
        assert worker.wire.acknowledged() == []


@pytest.mark.sqlite_only
def test_a_signal_stops_a_worker_that_is_not_connected_yet(tmp_path):
    """Its broker accepted the connection and does not answer."""
    with pretender() as url, beginning(tmp_path, url) as worker:
        time.sleep(0.2)
        code, seconds = stop(worker)

        log = worker.log.read_text()
        assert (code, seconds < STOP) == (0, True), log
        assert log.startswith("Stopped. 0 stored")


@pytest.mark.sqlite_only
def test_a_signal_stops_a_worker_whose_broker_is_away(broker, listen):
    with listen() as worker:
        worker.wire._broker_port = servers.free_port()  # No server listens there.
        worker.wire.hang_up()
        assert eventually(lambda: "connection lost" in worker.log.read_text())
        time.sleep(1)
        code, seconds = stop(worker)

        log = worker.log.read_text()
        assert (code, seconds < STOP) == (0, True), log
        assert "Traceback" not in log


@pytest.mark.sqlite_only
def test_a_signal_stops_a_worker_whose_broker_hangs(listen):
    """The acks cannot be flushed; the worker does not wait for them for ever."""
    with listen() as worker:
        worker.wire.die()
        code, seconds = stop(worker)

        assert (code, seconds < 10) == (0, True), worker.log.read_text()


@contextmanager
def beginning(folder, url):
    """Yield a worker that has begun to connect to a pretender."""
    connecting = Wire(int(url.rpartition(":")[2]))
    log = folder / "listen_mqtt.log"
    try:
        with servers.process(
            [sys.executable, "manage.py", "listen_mqtt"],
            env=environment(MQTT_URL=f"mqtt://127.0.0.1:{connecting.port}"),
            cwd=ROOT,
            log=log,
            ready=lambda: connecting.made,
        ) as process:
            process.log = log
            yield process
    finally:
        connecting.close()


# --- Messages that the broker dropped


@pytest.mark.parametrize("acc", ["4", "1"], ids=["subscribe", "receive"])
def test_the_account_of_the_worker_needs_a_grant_for_what_the_broker_dropped(ask, acc):
    provisioning.create_account("ingest", ingest=True, client_ids=["ingest-*"])
    question = {"username": "ingest", "clientid": "ingest-1", "acc": int(acc), "topic": DROPPED}
    assert ask("go-auth/acl", **question).status_code == 403

    for actions in ("subscribe", "receive"):
        Grant.objects.create(subject="key:account/ingest", actions=actions, filter=DROPPED)

    assert ask("go-auth/acl", **question).status_code == 200


@pytest.mark.sqlite_only
@pytest.mark.parametrize("topics", [["$SYS/#"], ["things/weatherstation/STATION-001/data"], ["a", "b+"]])
def test_a_topic_that_is_no_counter_is_one_line(listen_and_fail, topics):
    """Messages on such a topic are not stored."""
    said = listen_and_fail(DEVICEHUB_MQTT_DROPS=[DROPPED, *topics])

    assert_one_line(said, "DEVICEHUB_MQTT_DROPS")


@pytest.mark.sqlite_first
def test_what_the_broker_drops_is_read_beside_the_readings_until_ctrl_c(listen, publish):
    with listen(DEVICEHUB_MQTT_DROPS=DROPPED) as worker:
        assert eventually(lambda: worker.wire.subscribed() == 2)
        publish({"temperature": 1})
        assert eventually(temperatures) == [1]
        assert not QuarantinedMessage.objects.exists()
        code, seconds = stop(worker, signal.SIGINT)

        log = worker.log.read_text()
        assert (code, seconds < STOP) == (0, True), log
        first = next(line for line in log.splitlines() if "ingest.not_durable" not in line)
        assert first.startswith("connected to")
        assert "Stopped. 1 stored" in log
        assert "Traceback" not in log
        assert "refused the subscription" not in log
        assert eventually(lambda: worker.wire.bodies(DISCONNECT, of_worker=True))


# --- TLS


@pytest.mark.sqlite_first
def test_messages_of_any_size_arrive_over_tls(tls_broker, certificate, transactional_db, station, tmp_path):
    """A TLS record holds 16 KiB: it holds a part of a large message, or hundreds of small ones."""
    port, tls_port = tls_broker
    start = wire.workers(port, tmp_path)
    device = Connection(BrokerAddress("127.0.0.1", port), "device")
    with start(MQTT_URL=f"mqtts://127.0.0.1:{tls_port}", SSL_CERT_FILE=str(certificate[0])) as worker:
        infos = []
        for number in range(300):
            payload = {"temperature": 1, "rainfall": number, "x": "x" * (200_000 if number % 60 == 0 else 1)}
            topic, body = station.topic("data"), json.dumps(payload)
            infos.append(device._client.publish(topic, body, 1))
        for info in infos:
            info.wait_for_publish(20)
        assert eventually(lambda: WeatherStationReading.objects.count() == 300)
        device.publish(Outgoing(station.topic("data"), b'{"rainfall": 300}'))
        assert eventually(lambda: WeatherStationReading.objects.count() == 301)
        assert set(WeatherStationReading.objects.values_list("rainfall", flat=True)) == set(range(301))
        assert stop(worker)[0] == 0
    device.close()


@pytest.mark.sqlite_only
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_an_untrusted_certificate_is_one_line(listen_and_fail, tls_broker):
    said = listen_and_fail(MQTT_URL=f"mqtts://127.0.0.1:{tls_broker[1]}")
    gc.collect()  # paho leaves the socket of a refused handshake open, until here.

    assert_one_line(said, "certificate verify failed", *NAMED)


# --- Metrics


@pytest.mark.sqlite_only
def test_a_worker_answers_prometheus_at_the_given_port(listen):
    port = servers.free_port()
    with listen("--metrics", str(port)), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        said = reply.read()

    assert b"\ndevicehub_ingest_connected 1.0\n" in said
    assert b"\ndevicehub_ingest_waiting_messages 0.0\n" in said
    assert set(re.findall(rb"# TYPE (devicehub_\w+)", said)) == documented_metrics()


def documented_metrics():
    """Return the metrics of an ingest worker in the rows of docs/reference/urls.md."""
    page = (ROOT / "docs/reference/urls.md").read_text().partition("### Of an ingest worker")[2]
    return {name.encode() for name in re.findall(r"^\| `(devicehub_\w+)` \|", page, re.MULTILINE)}


@pytest.mark.sqlite_only
@pytest.mark.parametrize("place", ["x", "0", "65536", "127.0.0.1:", "127.0.0.1:-1", "9100:x", "\u0661"])
def test_metrics_at_no_port_are_refused(place):
    with pytest.raises(CommandError, match="is not \\[HOST:\\]PORT"):
        call_command("listen_mqtt", "--metrics", place)


@pytest.mark.sqlite_only
def test_metrics_at_a_port_that_is_taken_are_one_line(listen_and_fail):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert_one_line(listen_and_fail("--metrics", f"127.0.0.1:{port}"), "--metrics", str(port))


# --- Settings that cannot be used


@pytest.fixture
def listen_and_fail(settings, monkeypatch):
    """Return the function that calls `listen_mqtt`, which fails, and returns its output.

    It runs in this process, and records no session in the database.
    """
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(process, "settle", lambda: None)
    monkeypatch.setattr(process.sessions, "record", lambda *_: [])

    def call(*arguments, **changed):
        for name, value in changed.items():
            setattr(settings, name, value)
        said = io.StringIO()
        with pytest.raises(CommandError) as failed:
            call_command("listen_mqtt", *arguments, skip_checks=False, stderr=said, no_color=True)
        return f"{said.getvalue()}{failed.value}"

    return call


def assert_one_line(said, *words):
    lines = [line for line in said.splitlines() if not line.startswith("connected to")]
    assert len(lines) == 1, said
    for word in words:
        assert word in lines[0], said


NAMED = ("MQTT_URL", "DEVICEHUB_MQTT_VERSION", "DEVICEHUB_MQTT_GROUP")


@pytest.mark.sqlite_only
def test_a_host_that_cannot_exist_is_one_line(listen_and_fail):
    said = listen_and_fail(MQTT_URL=f"mqtt://ingest:s3cret@{'x' * 64}.example")

    assert_one_line(said, "is not the name of a host", *NAMED)
    assert "s3cret" not in said


@pytest.mark.sqlite_only
def test_a_broker_that_hangs_up_on_the_subscription_is_one_line(listen_and_fail):
    """RabbitMQ 3.10 does this when it refuses a filter."""
    with pretender(ACCEPTED, None) as rude:
        said = listen_and_fail(MQTT_URL=rude)

    assert_one_line(said, "hung up on the subscription", *NAMED)
    assert "s3cret" not in said


def listen_and_exit(url):
    """Return the line that `listen_mqtt`, in a process of its own, shows on the terminal before it fails."""
    done = subprocess.run(
        [sys.executable, "manage.py", "listen_mqtt"],
        env=environment(MQTT_URL=url),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.sqlite_only
def test_a_refused_login_is_one_line_and_exit_code_1():
    with pretender(b"\x20\x03\x00\x87\x00") as url:
        said = listen_and_exit(url)

    assert_one_line(said, "refused the connection", *NAMED)


@pytest.mark.sqlite_only
def test_a_refused_filter_is_one_line_and_exit_code_1():
    """The last of six filters is refused; the others are granted."""
    with pretender(ACCEPTED, suback(1, 1, 1, 1, 1, 0x87)) as url:
        said = listen_and_exit(url)

    assert_one_line(said, "refused the subscription", "$share/devicehub/things/", *NAMED)
    assert said.count("$share/") == 1


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("arguments", "group", "word"),
    [(["--worker", "2"], "", "DEVICEHUB_MQTT_GROUP"), (["--worker", "0"], "devicehub", "--worker")],
)
def test_a_worker_that_cannot_be_is_one_line(listen_and_fail, arguments, group, word):
    assert_one_line(listen_and_fail(*arguments, DEVICEHUB_MQTT_GROUP=group), word)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "spoken", [{"DEVICEHUB_MQTT_VERSION": "4"}, {"MQTT_URL": "http://x"}, {"MQTT_URL": "mqtt://x:y"}]
)
def test_settings_that_cannot_be_read_are_named_by_a_check(listen_and_fail, spoken):
    assert next(iter(spoken)) in listen_and_fail(**spoken)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("group", ["a/b", "a+", "#"])
def test_a_group_that_is_no_level_of_a_filter_is_named_by_a_check(settings, group):
    """`$share/a/b/things/...` is the filter `b/things/...`, which matches no topic: no message would arrive."""
    settings.DEVICEHUB_MQTT_GROUP = group

    assert [error for error in run_checks() if "DEVICEHUB_MQTT_GROUP" in error.msg]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("I/O on closed file")])
def test_a_log_that_cannot_be_written_does_not_end_ingest(error):
    """The network thread writes to which broker it is connected."""

    class Full(io.StringIO):
        def isatty(self):
            return True

        def write(self, text):
            raise error

    command = listen_mqtt.Command(stderr=Full())

    command._report("connected")
    command._count(Counter())
    assert command.stderr.isatty()
