"""A host in MQTT_URL that cannot be a name: one sentence, and no traceback."""

import pytest

from devicehub.mqtt import BrokerAddress, Connection, MqttError, Swarm

pytestmark = pytest.mark.sqlite_only


@pytest.mark.parametrize("host", ["mosquitto..example", "." * 3, "x" * 64])
def test_a_host_that_cannot_be_a_name_is_named(host):
    address = BrokerAddress.parse(f"mqtt://ingest:s3cret@{host}")

    for connect in (lambda: Connection(address, "ingest-1"), lambda: Swarm(address, "5")):
        with pytest.raises(MqttError, match=r"not the name of a host|no connection") as refused:
            connect()
        assert host in str(refused.value)
        assert "s3cret" not in str(refused.value)
