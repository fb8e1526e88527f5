"""The address of a broker with our login, and the errors of MQTT connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devicehub.errors import DevicehubError

# Seconds for a CONNACK; neither amqtt 0.12 nor RabbitMQ 3.10 answers an MQTT 5 CONNECT.
CONNECT_TIMEOUT = 5.0
KEEPALIVE = 30
VERSIONS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


class MqttError(DevicehubError):
    """The broker could not be reached, refused us, or did not acknowledge."""


class Unacknowledged(MqttError):
    """The broker did not acknowledge a message that may have been sent: it may arrive or not."""


class InvalidAddress(DevicehubError, ValueError):
    """A text that is not the address of a broker."""


@dataclass(frozen=True)
class BrokerAddress:
    """The host and port of a broker, and our login there."""

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    @classmethod
    def parse(cls, url: str, name: str = "MQTT_URL") -> BrokerAddress:
        """Return the address in mqtt://[user:password@]host[:port] (mqtts:// for TLS), percent-decoded.

        Raise InvalidAddress, which names the setting *name* and repeats nothing of *url*: it may hold a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
            # A / ? or # in a password ends the host early: the part before it would be taken for host and port.
            ends_early = parts.path not in ("", "/") or parts.query or parts.fragment
        except ValueError:
            ends_early = True
        if ends_early:  # Raised here, because a traceback shows the text of an error that is being handled.
            raise InvalidAddress(
                f"{name} cannot be read; write mqtt://user:password@host:1883. "
                "Percent-encode / ? # @ : [ ] and % in the user name and the password: / is %2F, # is %23"
            )
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise InvalidAddress(f"{name} is not an mqtt:// or mqtts:// address")
        return cls(
            host=parts.hostname,
            port=port or (8883 if parts.scheme == "mqtts" else 1883),
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            tls=parts.scheme == "mqtts",
        )


Made = TypeVar("Made", bound=paho.Client)


def client(
    address: BrokerAddress,
    client_id: str,
    version: str,
    *,
    clean: bool,
    made: type[Made],
    reconnects: bool = False,
) -> Made:
    """Return a client of paho's that is not yet connected.

    One that *reconnects* sends unacknowledged messages again by itself. It also connects as MQTT 3.1 to a broker that
    refuses 3.1.1.
    """
    protocol = VERSIONS[version]
    client = made(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=protocol,
        clean_session=None if protocol == paho.MQTTv5 else clean,
        reconnect_on_failure=reconnects,
    )
    if address.username:
        client.username_pw_set(address.username, address.password)
    if address.tls:
        client.tls_set()
    return client
