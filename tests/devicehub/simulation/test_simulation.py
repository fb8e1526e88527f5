"""Simulated devices: plausible values, deliberate faults, and thousands of logins at a real mosquitto."""

from __future__ import annotations

import json
import math
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.core.management import CommandError, call_command
from hypothesis import example, given
from hypothesis import strategies as st

from devicehub import provisioning
from devicehub.kinds.declare import Reading, StateField
from devicehub.messages.validate import check_reading, check_state
from devicehub.models import InvalidDeviceId
from devicehub.mqtt import BrokerAddress, Connection, MqttError, Outgoing, allow_files
from devicehub.mqtt.swarm.swarm import FEW
from devicehub.simulation import faults, series
from devicehub.simulation.faults import Faults, junk
from devicehub.simulation.logins import NotSimulated, issue_logins
from devicehub.simulation.run import Simulation
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig import servers
from rig.hub import ROOT, environment, eventually

pytestmark = pytest.mark.sqlite_first

TYPES = ("float", "integer", "boolean", "string", "json", "binary")
WEATHER = {
    "temperature": Reading(type="float", range=(-40, 80)),
    "cycles": Reading(type="integer", range=(0, None), unit="count"),
}

# Values


def bounds():
    number = st.none() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
    return st.tuples(number, number).filter(lambda b: None in b or b[0] <= b[1])


@st.composite
def declared(draw):
    kind = draw(st.sampled_from(TYPES))
    span = draw(st.none() | bounds()) if kind in ("float", "integer") else None
    reading = Reading(type=kind, range=span, unit=draw(st.sampled_from(["", "count"])))
    reading.name = "value"
    return reading


def near_the_end_of_what_is_stored(kind, low, high):
    reading = Reading(type=kind, range=(low, high))
    reading.name = "value"
    return reading


def least_float(low):
    """Return the smallest float that is not below *low*."""
    nearest = float(low)
    return nearest if nearest >= low else math.nextafter(nearest, math.inf)


@example(near_the_end_of_what_is_stored("float", 2**53 + 1, 2**53 + 1), "", 0.0)  # Between two floats.
@example(near_the_end_of_what_is_stored("integer", None, 2**63 + 30), "", 0.0)
@example(near_the_end_of_what_is_stored("integer", -(2**63) - 31, None), "", 0.0)
@given(declared(), st.text(max_size=8), st.floats(0, 4e9))
def test_a_value_is_always_what_ingest_takes_for_its_declaration(reading, device_id, moment):
    """Of the declared type, and inside the declared range."""
    value = series.value_at(reading, device_id, moment)

    if value is None:
        low, high = reading.range
        first = -(2**63) if low is None else max(-(2**63), math.ceil(low))
        last = 2**63 - 1 if high is None else min(2**63 - 1, math.floor(high))
        is_empty = high is not None and low is not None and least_float(low) > high
        assert first > last if reading.type == "integer" else is_empty, f"there is a value in {reading.range}"
    else:
        check_reading(value, reading)


@given(st.sampled_from([*TYPES[:5], "datetime"]), st.booleans(), st.text(max_size=8), st.floats(0, 4e9))
def test_a_state_is_always_one_that_ingest_takes(kind, has_choices, device_id, moment):
    choices = {"string": ["a", ("b", "B")], "integer": [0, 25, 50]}.get(kind) if has_choices else None
    state = StateField(type=kind, choices=choices)
    state.name = "mode"

    check_state(series.state_at(state, device_id, moment), state)


def changes(reading, seconds=3600):
    reading.name = "value"
    values = [series.value_at(reading, "SIM-001", 1.8e9 + second) for second in range(seconds)]
    return values, sum(a != b for a, b in pairwise(values))


def test_a_switch_flips_rarely():
    values, flips = changes(Reading(type="boolean"))

    assert set(values) == {True, False}
    assert 2 <= flips <= 12


def test_a_text_is_one_of_a_few_states():
    values, changed = changes(Reading(type="string"))

    assert set(values) == {"low", "normal", "high"}
    assert changed <= 24


def test_a_counter_counts_up_and_a_bounded_integer_steps():
    counted, _ = changes(Reading(type="integer", unit="count", range=(0, None)))
    assert counted == sorted(counted)
    assert counted[-1] - counted[0] >= 3600 // 121

    stepped, steps = changes(Reading(type="integer", range=(0, 100)))
    assert len(set(stepped)) > 5
    assert steps <= 3600 / series.STEP


def test_a_battery_falls_slowly_until_it_is_changed():
    levels = [series.battery_at("SIM-001", minute * 60) for minute in range(60 * 24)]

    assert min(levels) >= series.BATTERY_EMPTY
    assert max(levels) <= 100
    rises = sum(after > before for before, after in pairwise(levels))
    assert rises == 1, "one new battery in a day"


# Faults


def test_a_seed_decides_which_turns_go_wrong():
    def plans(seed):
        some = Faults(bad_payloads=10, duplicates=10, late=10, burst=5, seed=seed)
        return [
            (p.bad, p.duplicate, p.again_after, p.keep, p.shuffled, p.burst)
            for p in (some.plan("SIM-001", turn) for turn in range(300))
        ]

    assert plans(1) == plans(1)
    assert plans(1) != plans(2)


def test_a_percentage_is_what_it_says():
    some = Faults(bad_payloads=20, duplicates=5, seed=3)
    plans = [some.plan(f"SIM-{n}", turn) for n in range(20) for turn in range(500)]

    assert 1800 < sum(plan.bad for plan in plans) < 2200
    assert 400 < sum(plan.duplicate for plan in plans) < 600
    assert not any(plan.keep or plan.burst for plan in plans)


@pytest.mark.parametrize(
    "wrong", [{"late": 101}, {"duplicates": -1}, {"bad_payloads": float("nan")}, {"burst": -1}]
)
def test_a_number_that_is_not_a_percentage_is_refused(wrong):
    with pytest.raises(ValueError, match="--"):
        Faults(**wrong)


def test_every_kind_of_junk_is_made_and_none_of_it_is_a_good_sample():
    dice = random.Random(1)
    made = dict(junk(dice, WEATHER, {"temperature": 21.5, "cycles": 3}) for _ in range(300))

    assert set(made) == {maker.__name__.strip("_") for maker in faults.MAKERS}
    assert made["empty"] == b""
    assert len(made["long_junk"]) == 100_000
    out = json.loads(made["out_of_range"])
    assert out["temperature"] > 80 or out["cycles"] < 0
    for kind in ("not_json", "not_utf8", "empty", "long_junk"):
        with pytest.raises(ValueError):
            json.loads(made[kind])


@given(st.dictionaries(st.text("abc", min_size=1), declared(), max_size=3), st.integers(0, 2**32))
def test_junk_is_made_for_every_declaration(readings, seed):
    kind, payload = junk(random.Random(seed), readings, dict.fromkeys(readings, 1))

    assert kind
    assert isinstance(payload, bytes)


# Devices in the database


@pytest.mark.django_db
def test_a_simulation_never_takes_a_real_devices_credentials():
    """No device is created before all ids are checked."""
    kind = provisioning.kind_of("weatherstation")
    real, _ = provisioning.create(kind, "SIM-601")

    with pytest.raises(NotSimulated, match="weatherstation/SIM-601 is a real device"):
        issue_logins(kind, "SIM-", 700)

    assert list(WeatherStationDevice.objects.all()) == [real]
    assert WeatherStationDevice.objects.get().mqtt_password_hash == real.mqtt_password_hash


@pytest.mark.django_db
def test_a_simulation_issues_its_own_devices_credentials_anew():
    """It changes nothing else of them."""
    kind = provisioning.kind_of("weatherstation")
    first = issue_logins(kind, "SIM-", 2)[1]
    WeatherStationDevice.objects.filter(device_id="SIM-002").update(name="by the river", is_active=False)
    before = WeatherStationDevice.objects.get(device_id="SIM-002")

    logins = issue_logins(kind, "SIM-", 3)

    after = WeatherStationDevice.objects.get(device_id="SIM-002")
    assert [login.device_id for login in logins] == ["SIM-001", "SIM-002", "SIM-003"]
    assert after.check_mqtt_password(logins[1].password)
    assert not after.check_mqtt_password(first.password)
    assert (after.pk, after.name, after.is_active) == (before.pk, "by the river", False)
    assert after.created_at == before.created_at
    assert after.mqtt_username == logins[1].username


@pytest.mark.django_db
def test_a_simulated_id_that_another_type_has_is_refused():
    IrrigationValveDevice.objects.create(device_id="SIM-002")

    with pytest.raises(provisioning.IdentityTaken, match="irrigationvalve/SIM-002 has"):
        issue_logins(provisioning.kind_of("weatherstation"), "SIM-", 2)

    assert not WeatherStationDevice.objects.exists()


@pytest.mark.django_db
def test_a_prefix_that_makes_no_id_is_refused():
    with pytest.raises(InvalidDeviceId):
        issue_logins(provisioning.kind_of("weatherstation"), "a/b", 2)


@pytest.mark.django_db
def test_a_thousand_devices_are_made_in_seconds():
    """Of the time of this process, which other work on the machine does not change."""
    kind = provisioning.kind_of("weatherstation")
    progress = []
    began = time.process_time()

    issue_logins(kind, "SIM-", 1000, progress.append)
    issue_logins(kind, "SIM-", 1000)

    assert time.process_time() - began < 5
    assert progress == [500, 1000]


# Against a broker


@pytest.fixture
def broker(tmp_path, needs_real):
    """Yield the port of a mosquitto that admits all clients."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(tmp_path / "mosquitto"))
        except servers.MissingServer as missing:
            needs_real(missing)


class Ear:
    """A subscriber to all messages of simulated devices."""

    def __init__(self, port):
        self.heard = []
        self.connection = Connection(
            BrokerAddress("127.0.0.1", port), "ear", on_message=lambda *message: self.heard.append(message)
        )
        self.connection.subscribe("things/#")

    def payloads(self, about):
        return [payload for topic, payload in list(self.heard) if topic.endswith(f"/{about}")]

    def devices(self, about):
        return {topic.split("/")[2] for topic, _ in list(self.heard) if topic.endswith(f"/{about}")}


@pytest.fixture
def ear(broker):
    ear = Ear(broker)
    yield ear
    ear.connection.close()


@contextmanager
def simulating(port, *arguments, prefix=()):
    """Yield a process of `manage.py simulate_devices weatherstation`."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "manage.py", "simulate_devices", "weatherstation", *arguments],
        env=environment(MQTT_URL=f"mqtt://127.0.0.1:{port}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def result_of(process, timeout=30):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return json.loads(out)


@pytest.mark.servers
@pytest.mark.sqlite_first
@pytest.mark.django_db(transaction=True)
def test_two_hundred_devices_publish_in_one_thread_and_say_goodbye(ear, broker):
    options = ["--count", "200", "--interval", "1", "--history", "20", "--json"]
    with simulating(broker, *options) as process:
        assert eventually(lambda: len(ear.devices("data")) == 200, 20)
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        )
        assert int(status["Threads"]) <= 2
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        result = result_of(process)

    assert time.monotonic() - began < 5
    assert (result["devices"], result["connected"], result["failures"]) == (200, 200, 0)
    assert result["acknowledged"] == result["published"]
    assert result["unacknowledged"] == result["bad_payloads"] == result["duplicates"] == 0
    assert eventually(lambda: ear.payloads("status").count(b'{"status":"offline"}') == 200)
    assert len(ear.payloads("data")) + len(ear.payloads("status")) == result["published"]
    first = json.loads(ear.payloads("status")[0])
    assert first["status"] == "online"
    assert 0 < first["battery_level"] <= 100


@pytest.mark.servers
@pytest.mark.sqlite_first
@pytest.mark.django_db(transaction=True)
def test_faults_are_counted_as_they_arrive(ear, broker):
    options = ["--count", "50", "--interval", "0.25", "--duration", "4", "--history", "0", "--seed", "7"]
    wrong = ["--bad-payloads", "10", "--duplicates", "10", "--late", "30", "--burst", "20"]
    with simulating(broker, *options, *wrong, "--json") as process:
        result = result_of(process)

    payloads = ear.payloads("data")
    assert result["seed"] == 7
    assert result["acknowledged"] == result["published"] == len(payloads) + len(ear.payloads("status"))
    assert sum(result["bad_by_kind"].values()) == result["bad_payloads"] > 20
    assert result["bursts"] * 20 == result["burst_messages"] > 0
    arrays = [json.loads(p) for p in set(payloads) if p.startswith(b'[{"')]
    assert len(arrays) == result["late_batches"] > 10
    assert sum(map(len, arrays)) == result["late_samples"]
    times = [[sample["timestamp"] for sample in array] for array in arrays]
    assert any(some != sorted(some) for some in times), "out of order too"
    assert any(some == sorted(some) for some in times)
    topics = Counter((topic, payload) for topic, payload in ear.heard if topic.endswith("/data"))
    # Two equal bad payloads may occur by chance, so only good messages are compared.
    again = sum(n - 1 for (_, payload), n in topics.items() if b"timestamp" in payload)
    assert 0 < again <= result["duplicates"]


@contextmanager
def running(settings, port, count, url="mqtt://127.0.0.1:{}", **options):
    """Yield a simulation in a thread of this process, and the lines that it reports, its result as the last."""
    settings.MQTT_URL = url.format(port)
    kind = provisioning.kind_of("weatherstation")
    lines = []
    simulation = Simulation(
        kind, issue_logins(kind, "SIM-", count), interval=0.5, history=0, report=lines.append, **options
    )
    thread = threading.Thread(target=lambda: lines.append(simulation.run()))
    thread.start()
    try:
        yield simulation, lines
    finally:
        simulation.stop()
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.servers
@pytest.mark.sqlite_first
@pytest.mark.django_db
def test_devices_come_back_after_the_broker_did(tmp_path, needs_real, settings):
    """Each comes back after a pause of its own, and all together make one complaint."""
    port = servers.free_port()
    listener = f"listener {port} 127.0.0.1\n"
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        try:
            first.enter_context(servers.mosquitto(tmp_path / "first", listener))
        except servers.MissingServer as missing:
            needs_real(missing)
        simulation, lines = stack.enter_context(running(settings, port, 50))
        assert eventually(lambda: simulation.tally.connections == 50)
        first.close()
        assert eventually(lambda: simulation.tally.failures >= 50)
        stack.enter_context(servers.mosquitto(tmp_path / "again", listener))
        assert eventually(lambda: simulation.tally.connections == 100, 30)
        published = simulation.tally.published
        assert eventually(lambda: simulation.tally.published > published + 50)
        simulation.stop()
        result = eventually(lambda: lines[-1] if not isinstance(lines[-1], str) else None)

    assert result.connected == 50
    assert result.acknowledged + result.unacknowledged == result.tally.published
    assert 0 < len(lines) < 12
    assert any("more devices: " in line for line in lines[:-1])


@pytest.mark.servers
@pytest.mark.sqlite_first
@pytest.mark.django_db
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_devices_obey(broker, settings, version):
    """They answer on their reply topic with the id; on MQTT 5 on the response topic, with the correlation data."""
    settings.DEVICEHUB_MQTT_VERSION = version
    answers = []
    hub = Connection(
        BrokerAddress("127.0.0.1", broker), "hub", on_message=lambda *message: answers.append(message)
    )
    hub.subscribe("things/weatherstation/SIM-002/reply")
    hub.subscribe("answers/here")
    command = json.dumps({"id": "7", "command": "reboot", "payload": {}}).encode()
    topic = "things/weatherstation/SIM-002/cmd"
    with running(settings, broker, 2) as (simulation, _):
        assert eventually(lambda: simulation.tally.connections == 2)
        hub.publish(Outgoing(topic, b"no command"))
        hub.publish(Outgoing(topic, b"[1]"))
        hub.publish(Outgoing(topic, command))
        assert eventually(lambda: len(answers) == 1)
        hub.publish(Outgoing(topic, command, correlation_data=b"7", response_topic="answers/here"))
        assert eventually(lambda: len(answers) == 2)
    hub.close()

    assert [json.loads(payload) for _, payload in answers] == [
        {"id": "7", "ok": True, "result": "reboot"}
    ] * 2
    where = "answers/here" if version == "5" else "things/weatherstation/SIM-002/reply"
    assert [topic for topic, _ in answers] == ["things/weatherstation/SIM-002/reply", where]
    assert simulation.tally.commands == 2


@pytest.mark.servers
@pytest.mark.sqlite_first
@pytest.mark.django_db
def test_the_last_device_claims_its_neighbours_topic(ear, broker, settings):
    with running(settings, broker, 3, misbehave=True) as (simulation, _):
        assert eventually(lambda: simulation.tally.trespasses)
        assert eventually(lambda: b'{"temperature": 79.9}' in ear.payloads("data"))

    forged = {topic for topic, payload in ear.heard if payload == b'{"temperature": 79.9}'}
    assert forged == {"things/weatherstation/SIM-001/data"}


@pytest.mark.servers
@pytest.mark.sqlite_first
@pytest.mark.django_db(transaction=True)
def test_the_will_of_a_killed_device_sets_it_offline(ear, broker):
    """The process is killed, and the broker publishes the wills of both devices."""
    with simulating(broker, "--count", "2", "--interval", "0.5", "--history", "0") as process:
        assert eventually(lambda: len(ear.devices("data")) == 2, 20)
        offline = ear.payloads("status").count(b'{"status":"offline"}')
        process.kill()
        assert eventually(lambda: ear.payloads("status").count(b'{"status":"offline"}') == offline + 2)


@pytest.mark.sqlite_first
@pytest.mark.django_db(transaction=True)
@pytest.mark.servers
def test_without_a_broker_nothing_is_published_and_one_line_says_so():
    with simulating(servers.free_port(), "--count", "50", "--duration", "1") as process:
        out, err = process.communicate(timeout=30)

    assert process.returncode == 1
    assert out == ""
    lines = err.strip().splitlines()
    assert lines[-1].startswith("CommandError: Nothing was published")
    assert len(lines) == 3, "one device, how many more, and the end"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count must be 1 or more"),
        (["--interval", "nan"], "--interval above 0"),
        (["--duration", "0"], "--duration must be above 0"),
        (["--history", "-1"], "--history must be 0 to 86400"),
        (["--late", "120"], "--late must be a percentage"),
        (["--prefix", "a/b"], "cannot be a device id"),
        (["--count", "1000000000"], "connections need 1000000064 open files"),
    ],
)
@pytest.mark.django_db
def test_a_simulation_that_cannot_run_is_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))

    with pytest.raises(CommandError, match=message):
        call_command("simulate_devices", "weatherstation", *arguments)


def test_the_soft_limit_of_open_files_is_raised_as_far_as_needed(monkeypatch):
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))

    allow_files(500)
    assert raised == []
    allow_files(2000)
    assert raised == [(2064, 4096)]
    with pytest.raises(MqttError, match="5000 connections need 5064 open files"):
        allow_files(5000)


@pytest.mark.sqlite_first
@pytest.mark.django_db
def test_a_broker_that_does_not_answer_gets_few_connections(settings):
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        silent.settimeout(0.5)
        accepted = []
        with running(settings, silent.getsockname()[1], 100) as (simulation, _), suppress(TimeoutError):
            while True:
                accepted.append(silent.accept()[0])
        for connection in accepted:
            connection.close()

    assert len(accepted) == FEW
    assert simulation.tally.connections == 0


@pytest.fixture
def certificate(tmp_path):
    """Return the paths of a self-signed certificate for localhost and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "broker.crt", tmp_path / "broker.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@pytest.mark.servers
@pytest.mark.sqlite_first
@pytest.mark.django_db
def test_devices_speak_tls_to_a_broker_that_can_prove_who_it_is(
    tmp_path, certificate, needs_real, settings, monkeypatch
):
    port = servers.free_port()
    proof, key = certificate
    tls = f"listener {port} 127.0.0.1\ncertfile {proof}\nkeyfile {key}\n"
    with ExitStack() as stack:
        try:
            stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", tls))
        except servers.MissingServer as missing:
            needs_real(missing)
        with running(settings, port, 3, url="mqtts://localhost:{}") as (simulation, lines):
            assert eventually(lambda: simulation.tally.failures >= 3)
        assert "certificate verify failed" in lines[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(proof))
        with running(settings, port, 50, url="mqtts://localhost:{}") as (simulation, lines):
            assert eventually(lambda: simulation.tally.published > 100)

    assert simulation.tally.connections == 50
    assert lines[-1].acknowledged == lines[-1].tally.published
