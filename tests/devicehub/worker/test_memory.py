"""The memory of a worker that gets long messages, against a real mosquitto."""

import json
import re
from pathlib import Path

import pytest

from devicehub.messages.json_limits import MAX_KEPT
from devicehub.models import QuarantinedMessage
from devicehub.mqtt import BrokerAddress, Connection, Outgoing
from fleet.models import WeatherStationReading
from rig import wire
from rig.hub import eventually

pytestmark = pytest.mark.servers

MIB = 1 << 20


def most_memory(pid):
    """Return the peak of a process's resident memory in bytes."""
    [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) << 10


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("version", "tls", "sizes"),
    [("5", False, {0: 12, 1: 32, 2: 12}), ("3.1.1", True, {1: 32})],
    ids=["5", "3.1.1 over TLS"],
)
def test_a_worker_grows_by_no_long_message(tls_broker, certificate, station, tmp_path, version, tls, sizes):
    url = f"mqtts://127.0.0.1:{tls_broker[1]}" if tls else f"mqtt://127.0.0.1:{tls_broker[0]}"
    device = Connection(BrokerAddress("127.0.0.1", tls_broker[0]), "device")
    settings = {"SSL_CERT_FILE": str(certificate[0])} if tls else {}
    settings |= {"DEVICEHUB_MQTT_VERSION": version, "DEVICEHUB_MQTT_GROUP": "" if tls else "devicehub"}
    with wire.workers(tls_broker[0], tmp_path)(MQTT_URL=url, **settings) as worker:
        # A message at the limit comes first: its memory is the measure.
        device.publish(Outgoing(station.topic("data"), b'{"temperature": 1}'.ljust(MAX_KEPT)))
        assert eventually(lambda: WeatherStationReading.objects.count() == 1)
        before = most_memory(worker.pid)

        for qos, size in sizes.items():
            device.publish(Outgoing(station.topic("data"), b"x" * (size * MIB), qos=qos), timeout=20)
        device.publish(Outgoing(station.topic("data"), json.dumps({"temperature": 2}).encode()))

        assert eventually(lambda: WeatherStationReading.objects.count() == 2, 20)
        assert most_memory(worker.pid) - before < 12 * MIB
        rows = QuarantinedMessage.objects.values_list("reason", "device_key", "topic")
        assert set(rows) == {("too_large", "weatherstation/STATION-001", station.topic("data"))}
        assert len(rows) == len(sizes)
        assert wire.stop(worker)[0] == 0
    device.close()
