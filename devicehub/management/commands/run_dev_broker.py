"""`manage.py run_dev_broker`: run aMQTT, a broker in Python that asks this service. For development only."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import CommandError, CommandParser

from authsvc.management.command import DatabaseCommand

USER_PLUGIN = "amqtt.contrib.http.UserAuthHttpPlugin"
TOPIC_PLUGIN = "amqtt.contrib.http.TopicAuthHttpPlugin"
ANSWER_SECONDS = 5  # Time-out of one answer; after it aMQTT loses the rest of the delivery.


class Command(DatabaseCommand):
    help = "Run aMQTT with its HTTP plugins. AUTHSVC_TOKEN holds the token of a broker of dialect amqtt."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=1883, help="port to listen on (default: %(default)s)")
        parser.add_argument("--bind", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument(
            "--auth-url",
            default="http://127.0.0.1:8000",
            help="address of this service (default: %(default)s)",
        )

    def handle(self, *, port: int, bind: str, auth_url: str, **options: Any) -> str:
        token = os.environ.get("AUTHSVC_TOKEN", "")
        if not token:
            raise CommandError("Set AUTHSVC_TOKEN to a token from `manage.py create_broker NAME amqtt`")
        try:
            plugins = importlib.import_module("amqtt.contrib.http")
            broker_module = importlib.import_module("amqtt.broker")
            aiohttp = importlib.import_module("aiohttp")
        except ImportError as error:
            raise CommandError(
                'aMQTT is not installed. In a project of your own run: pip install "devicehub[demo]"; '
                "in a clone of DeviceHub run: script/setup --demo"
            ) from error
        if urlsplit(auth_url).scheme != "http" or not urlsplit(auth_url).hostname:
            raise CommandError(
                f"--auth-url {auth_url}: this broker asks over plain http; write http://127.0.0.1:8000"
            )
        _limit_waiting(plugins, aiohttp)
        config = _config(plugins, auth_url, token, f"{bind}:{port}")
        try:
            asyncio.run(
                _serve(broker_module.Broker, config, lambda: self.stderr.write(f"listening on {bind}:{port}"))
            )
        except (OSError, broker_module.BrokerError) as error:
            raise CommandError(f"The broker cannot listen on {bind}:{port}: {error}") from error
        return "Stopped."


def _limit_waiting(plugins: Any, aiohttp: Any) -> None:
    """Make the plugins of aMQTT wait ANSWER_SECONDS for an answer.

    aMQTT 0.12 does not read the option `timeout` of its plugins, and aiohttp waits 300 s by default.
    """
    limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    plugins.ClientSession = partial(aiohttp.ClientSession, timeout=limit)


def _config(plugins: Any, auth_url: str, token: str, listen: str) -> dict[str, Any]:
    """Return the configuration as objects: aMQTT's YAML loader leaves the plugins' enums as text and refuses them."""
    parts = urlsplit(auth_url)
    http = {
        "host": parts.hostname,
        "port": parts.port or 80,
        "request_method": plugins.RequestMethod.POST,
        "params_mode": plugins.ParamsMode.JSON,
        "response_mode": plugins.ResponseMode.JSON,
    }
    return {
        "listeners": {"default": {"type": "tcp", "bind": listen}},
        "plugins": {
            USER_PLUGIN: {**http, "user_uri": f"/mqtt/amqtt/user?k={token}"},
            TOPIC_PLUGIN: {**http, "topic_uri": f"/mqtt/amqtt/acl?k={token}"},
        },
    }


class _Subscriptions(dict[str, Any]):
    """The subscriptions of the broker. `items()` is a copy, since aMQTT 0.12 awaits while it iterates over them."""

    def items(self) -> Any:
        return list(super().items())


async def _serve(broker_class: Any, config: dict[str, Any], ready: Callable[[], object]) -> None:
    logging.getLogger("transitions").setLevel(logging.WARNING)
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    broker = broker_class(config)
    broker._subscriptions = _Subscriptions()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.start()
    ready()
    await stop.wait()
    await broker.shutdown()
