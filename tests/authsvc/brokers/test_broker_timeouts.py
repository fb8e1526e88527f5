"""Time-outs of the shipped configurations: a service that hangs must not stop a whole broker."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from authsvc.brokers import BY_DIALECT
from authsvc.freshness import reader
from devicehub.management.commands import run_dev_broker
from rig import servers
from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only
PLUGIN = {"go-auth": "http_timeout", "jwt": "jwt_http_timeout"}


def mosquitto_options(text: str) -> dict[str, str]:
    """Return the options of mosquitto.conf *text* with their values; the first word of a line is the name."""
    lines = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    assert len({name for name, _ in lines}) == len(lines), "an option is given twice"
    return dict(lines)


def printed(dialect: str) -> str:
    return BY_DIALECT[dialect].configuration("http://127.0.0.1:8000", "TOKEN")


@pytest.mark.parametrize("dialect", PLUGIN)
def test_mosquitto_stops_for_two_seconds_at_most(dialect):
    """The plugin asks in the only network thread of mosquitto, and retries once after an error."""
    options = mosquitto_options(printed(dialect))

    assert options[f"auth_opt_{PLUGIN[dialect]}"] == "1"
    assert options["auth_opt_retry_count"] == "1"


def test_the_shipped_mosquitto_conf_asks_as_the_printed_one_does():
    shipped = mosquitto_options((ROOT / "mosquitto" / "mosquitto.conf").read_text())
    shipped = {
        name: value.replace("@HOST@", "127.0.0.1").replace("@PORT@", "8000").replace("@TOKEN@", "TOKEN")
        for name, value in shipped.items()
    }

    assert mosquitto_options(printed("go-auth")).items() <= shipped.items()


def test_nanomq_waits_one_second_under_its_lock():
    assert re.findall(r"^ +(\w*timeout) = (\w+)$", printed("nanomq"), re.MULTILINE) == [
        ("timeout", "1s"),
        ("connect_timeout", "1s"),
    ]


@pytest.mark.parametrize("dialect", sorted(BY_DIALECT))
def test_no_configuration_waits_longer_than_five_seconds(dialect):
    waits = re.findall(r"timeout\S* *=? *(\d+)(s?)\b", printed(dialect))

    assert {int(number) / (1 if unit or int(number) < 1000 else 1000) for number, unit in waits} <= {1.0, 5.0}


def test_a_read_times_out_before_mosquitto_does():
    """A cached answer while the database hangs must still reach the broker in time."""
    assert int(mosquitto_options(printed("go-auth"))["auth_opt_http_timeout"]) > reader.READ_SECONDS


@pytest.fixture
def plugins() -> Iterator[Any]:
    module: Any = importlib.import_module("amqtt.contrib.http")
    own = module.ClientSession
    yield module
    module.ClientSession = own


def test_the_development_broker_waits_five_seconds(plugins):
    """By default aMQTT waits 300 s, and all later deliveries wait too."""
    broker_module = importlib.import_module("amqtt.broker")
    run_dev_broker._limit_waiting(plugins, importlib.import_module("aiohttp"))
    listen = f"127.0.0.1:{servers.free_port()}"
    config = run_dev_broker._config(plugins, "http://127.0.0.1:8000", "TOKEN", listen)

    async def waits() -> list[float | None]:
        broker = broker_module.Broker(config)
        await broker.start()
        try:
            return [plugin.http.timeout.total for plugin in broker.plugins_manager.plugins]
        finally:
            await broker.shutdown()

    assert asyncio.run(waits()) == [5, 5]
