"""Where a broker is, who we are there, and what can go wrong on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devicehub.errors import DevicehubError

CONNECT_TIMEOUT = 5.0  # seconds for a CONNACK; neither amqtt 0.12 nor RabbitMQ 3.10 answers an MQTT 5 CONNECT
KEEPALIVE = 30
VERSIONS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


class MqttError(DevicehubError):
    """The broker could not be reached, refused us, or did not acknowledge."""


class Unacknowledged(MqttError):
    """A message was sent and the broker did not say that it has it: it may arrive, or not."""


class InvalidAddress(DevicehubError, ValueError):
    """A text that is no address of a broker."""


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker is and who we are there."""

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Return the address in mqtt://[user:password@]host[:port] (mqtts:// for TLS), percent-decoded.

        Raise InvalidAddress, which repeats nothing of *url*: it may hold a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
            # A / ? or # in a password ends the host early: what stands before it would be taken for host and port.
            ends_early = parts.path not in ("", "/") or parts.query or parts.fragment
        except ValueError:
            ends_early = True
        if ends_early:  # raised here, because a traceback shows the text of an error that is being handled
            raise InvalidAddress(
                "MQTT_URL cannot be read; write mqtt://user:password@host:1883. "
                "Percent-encode / ? # @ : [ ] and % in the user name and the password: / is %2F, # is %23"
            )
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise InvalidAddress("MQTT_URL is not an mqtt:// or mqtts:// address")
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
    """A client of paho's, not yet connected.

    One that *reconnects* sends again by itself what was not acknowledged. It also connects as MQTT 3.1 to a broker that
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
