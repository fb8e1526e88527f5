"""The first start of an ingest worker while its broker, or the service that the broker asks, is away or slow."""

import socket
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from devicehub import provisioning
from devicehub.kinds import topics
from devicehub.mqtt import BrokerAddress
from devicehub.mqtt.listening.diagnosis import cause_of_silence
from devicehub.worker import admission
from rig import servers, wire
from rig.hub import ROOT, environment, eventually
from rig.wire import ACCEPTED, UNSUBACK, listening, pretender, suback

pytestmark = pytest.mark.servers

REFUSED = b"\x20\x03\x00\x87\x00"
UNAVAILABLE = b"\x20\x03\x00\x88\x00"
GRANTED = [ACCEPTED, suback(1), UNSUBACK]


@pytest.mark.sqlite_only
def test_a_first_start_waits_for_its_broker(tmp_path, needs_real):
    port = servers.free_port()
    with listening(f"mqtt://127.0.0.1:{port}") as listener, ExitStack() as stack:
        assert eventually(lambda: listener.said)
        try:
            stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", port=port))
        except servers.MissingServer as missing:
            needs_real(missing)
        assert eventually(lambda: listener.listening_since)

        refused, connected = listener.said
        assert "Connection refused" in refused
        assert connected.startswith("connected to")
        listener.stop()


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("refusal", "cause"),
    [
        ([REFUSED], "refused the connection: Not authorized, and the service itself does not refuse it"),
        ([UNAVAILABLE], "refused the connection: Server unavailable, trying again"),
        ([None], "closed the connection instead of an answer: it answers other clients, so the service"),
        ([ACCEPTED, suback(0x87)], "refused the subscription to things/#, and the service itself does not"),
    ],
    ids=["login", "unavailable", "hung up", "filter"],
)
def test_a_first_start_waits_for_the_service_that_the_broker_asks(refusal, cause):
    """Its account is right, so the refusal has another cause, which is reported in one line."""
    with pretender(*refusal, then=GRANTED) as url, listening(url) as listener:
        assert eventually(lambda: listener.listening_since)
        said, *others = [text for text in listener.said if not text.startswith("connected to")]
        assert cause in said
        assert others == []
        assert "DEVICEHUB_MQTT_VERSION" not in said


@pytest.mark.sqlite_only
@pytest.mark.parametrize("answers", [[REFUSED], [ACCEPTED, suback(0x87), UNSUBACK], [ACCEPTED, None]])
def test_a_refusal_that_the_service_confirms_ends_a_first_start(answers):
    with pretender(*answers) as url, listening(url, judge=lambda: "the password is wrong") as listener:
        assert eventually(lambda: "the password is wrong" in listener.failure)


@pytest.mark.sqlite_only
def test_a_worker_waits_for_the_service_that_its_broker_asks(transactional_db, tmp_path):
    _, password = provisioning.create_account("ingest", ingest=True, client_ids=["ingest-*"])
    log = tmp_path / "listen_mqtt.log"
    with (
        pretender(REFUSED, then=[ACCEPTED, suback(1, 1, 1, 1, 1, 1), UNSUBACK]) as url,
        servers.process(
            [sys.executable, "manage.py", "listen_mqtt"],
            env=environment(MQTT_URL=url.replace("s3cret", password)),
            cwd=ROOT,
            log=log,
            ready=lambda: "connected to" in log.read_text(),
        ),
    ):
        refused, _ = log.read_text().splitlines()
        assert refused.endswith("the broker may not reach it; trying again")


@pytest.mark.sqlite_only
def test_the_service_knows_whether_a_refusal_is_final(transactional_db):
    _, password = provisioning.create_account("ingest", ingest=True, client_ids=["ingest-*"])
    wanted = [f"$share/devicehub/{text}" for text in topics.subscriptions()]

    def refusal(username="ingest", password=password, client_id="ingest-1", filters=wanted):
        return admission.refusal(BrokerAddress("127.0.0.1", 1, username, password), client_id, filters)

    assert refusal() == ""
    assert refusal(filters=[]) == ""
    assert "The password is wrong" in refusal(password="x")
    assert "There is no identity with this username" in refusal(username="other")
    assert "client id" in refusal(client_id="other-1")
    assert "No rule allows this" in refusal(filters=[*wanted, "else/#"])


@contextmanager
def older_broker(answers=((4, b"\x20\x02\x00\x05"),)):
    """Yield the address of a server with *answers* by MQTT version; by default it refuses 3.1.1 and ignores 5."""

    def serve():
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                clients.append(client)
                client.sendall(dict(answers).get(wire.cut(client.recv(4096))[1][6], b""))

    clients = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield BrokerAddress("127.0.0.1", server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for client in clients:
        client.close()


@pytest.mark.sqlite_only
def test_a_silent_broker_is_distinguished_from_one_of_another_version():
    with pretender() as silent, older_broker() as odd:
        assert "answers no client" in cause_of_silence(BrokerAddress.parse(silent), "5", timeout=0.3)
        assert cause_of_silence(odd, "5", timeout=0.3).endswith("set DEVICEHUB_MQTT_VERSION=3.1.1")
        assert "it answers other clients" in cause_of_silence(odd, "3.1.1", timeout=0.3)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "refusal", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00", b"\x20\x83\x01\x00\x84" + b"\0" * 128]
)
def test_a_refusal_of_the_version_is_not_an_answer(refusal):
    """aMQTT 0.12 refuses MQTT 5 in this way at once, and answers 3.1.1 only after its service did."""
    with older_broker([(5, refusal)]) as hanging, older_broker([(5, refusal), (4, REFUSED)]) as odd:
        assert "answers no client" in cause_of_silence(hanging, "3.1.1", timeout=0.3)
        assert cause_of_silence(odd, "5", timeout=0.3).endswith("set DEVICEHUB_MQTT_VERSION=3.1.1")
