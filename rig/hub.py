"""A running hub: gunicorn, a real broker that asks it, and an ingest worker, on the test database."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from django.db import connections

from authsvc.models import Broker
from devicehub import provisioning
from devicehub.mqtt import BrokerAddress, Connection
from rig import servers
from rig.cast import Cast

ROOT = Path(__file__).resolve().parent.parent
# A client for each question would read the certificates of the system each time, which takes longer than the answer.
CLIENT = httpx.Client(timeout=5, limits=httpx.Limits(max_keepalive_connections=0))
VERSION = "3.1.1"  # the version of aMQTT 0.12 and RabbitMQ 3.10


def database_url() -> str:
    """Return the DATABASE_URL of the test database, for another process."""
    config = connections["default"].settings_dict
    if connections["default"].vendor == "sqlite":
        return f"sqlite:///{config['NAME']}"
    login = f"{quote(config['USER'])}:{quote(config['PASSWORD'])}"
    return f"postgres://{login}@{config['HOST']}:{config['PORT']}/{config['NAME']}"


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process on the test database, with *more* variables."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": database_url(),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


COMMANDS = """
import contextlib, io, json, sys
import django
django.setup()
from django.core.management import call_command

printed = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call_command(*arguments)
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


def run_commands(url: str, *commands: Sequence[str], **variables: str) -> list[str]:
    """Run management *commands* on the database at *url*, all in one new process; return the output of each.

    *variables* are added to its environment.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        env=environment(DATABASE_URL=url, **variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed: list[str] = json.loads(done.stdout)
    return printed


@contextmanager
def gunicorn(folder: Path, **variables: str) -> Iterator[str]:
    """Serve the whole site and yield its URL. *variables* are added to its environment."""
    with gunicorn_process(folder, **variables) as (url, _):
        yield url


@contextmanager
def gunicorn_process(folder: Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve the whole site and yield its URL, and the parent process of its workers."""
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "config/gunicorn.conf.py",
        "--bind",
        f"127.0.0.1:{port}",
    ]
    with servers.process(
        [*command, "config.asgi:application"],
        env=environment(**variables),
        cwd=ROOT,
        log=folder / "gunicorn.log",
        ready=lambda: urllib.request.urlopen(f"{url}/healthz", timeout=1).status == 200,
    ) as server:
        yield url, server


@contextmanager
def runserver(folder: Path, **variables: str) -> Iterator[str]:
    """Start the site with `manage.py runserver`, which is WSGI, on the test database; yield its URL."""
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    with servers.process(
        [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
        env=environment(**variables),
        cwd=ROOT,
        log=folder / "runserver.log",
        ready=lambda: urllib.request.urlopen(f"{url}/healthz", timeout=1).status == 200,
    ):
        yield url


@contextmanager
def amqtt(folder: Path, *, auth_url: str, token: str, port: int | None = None) -> Iterator[int]:
    """Run aMQTT by `manage.py run_dev_broker` and yield its port, which is *port* if given."""
    port = port or servers.free_port()
    command = [sys.executable, "manage.py", "run_dev_broker", "--port", str(port), "--auth-url", auth_url]
    with servers.process(
        command,
        env=environment(AUTHSVC_TOKEN=token),
        cwd=ROOT,
        log=folder / "amqtt.log",
        ready=lambda: servers.accepts(port),
    ):
        yield port


def listener(folder: Path, mqtt_url: str) -> servers.Restartable:
    """Return `manage.py listen_mqtt`, which is subscribed when start() returns. Its logs are in *folder*."""
    numbers = itertools.count(1)

    @contextmanager
    def run() -> Iterator[subprocess.Popen[bytes]]:
        log = folder / f"listen_mqtt-{next(numbers)}.log"
        with servers.process(
            [sys.executable, "manage.py", "listen_mqtt"],
            env=environment(MQTT_URL=mqtt_url, DEVICEHUB_MQTT_VERSION=VERSION, DEVICEHUB_MQTT_GROUP=""),
            cwd=ROOT,
            log=log,
            ready=lambda: "connected to" in log.read_text(),
        ) as process:
            yield process

    return servers.Restartable(run)


BROKERS = {"amqtt": amqtt, "rabbitmq": servers.rabbitmq}


@dataclass
class Hub:
    """A running hub. *mqtt_url* logs in as its ingest account."""

    broker: str
    url: str
    port: int
    mqtt_url: str
    worker: servers.Restartable
    folder: Path

    def connect(
        self,
        who: Cast,
        *,
        client_id: str | None = None,
        password: str | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
    ) -> Connection:
        """Connect as *who*. Raise MqttError if the broker refuses."""
        address = BrokerAddress("127.0.0.1", self.port, who.username, password or who.password)
        return Connection(address, client_id or who.username, version=VERSION, on_message=on_message)


@contextmanager
def running(broker: str, folder: Path) -> Iterator[Hub]:
    """Run a hub with *broker* on the test database; its pages name the broker's address. Raise MissingServer."""
    row = Broker(name=f"test {broker}", dialects=[broker])
    token = row.issue_token()
    row.save()
    name = f"ingest-{broker}"
    _, password = provisioning.create_account(name, ingest=True)
    with ExitStack() as stack:
        port = servers.free_port()
        settings = {"DEVICEHUB_DEVICE_URL": f"mqtt://127.0.0.1:{port}", "DEVICEHUB_MQTT_VERSION": VERSION}
        url = stack.enter_context(gunicorn(folder, **settings))
        stack.enter_context(BROKERS[broker](folder, auth_url=url, token=token, port=port))
        mqtt_url = f"mqtt://{name}:{password}@127.0.0.1:{port}"
        worker = listener(folder, mqtt_url)
        stack.callback(worker.stop)
        worker.start()
        yield Hub(broker, url, port, mqtt_url, worker, folder)


def eventually(probe: Callable[[], Any], seconds: float = 10) -> Any:
    """Call *probe* until it is true or *seconds* are over, and return its last value."""
    end = time.monotonic() + seconds
    while not (value := probe()) and time.monotonic() < end:
        time.sleep(0.05)
    return value
