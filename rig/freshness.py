"""A site with two processes on PostgreSQL, and tables whose changes reach both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import psycopg.sql

from authsvc.freshness import changes
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig import servers
from rig.hub import CLIENT, eventually

BOUND = 1.0  # seconds from the commit
DEVICES = WeatherStationDevice._meta.db_table
VALVES = IrrigationValveDevice._meta.db_table  # an empty table
OK, DENIED, FAULT = 200, 403, 503


@dataclass
class Site:
    """PostgreSQL, and two processes that answer questions from its contents."""

    cluster: servers.Cluster
    token: str
    devices: list[dict[str, Any]]
    account: str
    urls: list[str]

    def sql(self, statement: str, **values: Any) -> None:
        """Execute *statement* over a connection of its own."""
        with psycopg.connect(self.cluster.url, autocommit=True) as connection:
            connection.execute(statement, values)

    def all_answer(self, wanted: int, ask: Callable[[str], int]) -> bool:
        """Return whether *ask* gets the answer *wanted* from all processes within BOUND seconds."""
        end = time.monotonic() + BOUND

        def answers(url: str) -> bool:
            return ask(url) == wanted

        return all(eventually(partial(answers, url), end - time.monotonic()) for url in self.urls)

    def ask(self, url: str, question: str, **fields: Any) -> int:
        """Ask the process at *url* a question of go-auth, and return the status of its reply."""
        reply = CLIENT.post(f"{url}/mqtt/go-auth/{question}?k={self.token}", json=fields)
        return reply.status_code

    def login(self, url: str, device: dict[str, Any], password: str | None = None) -> int:
        """Log *device* in at *url*, and return the status of the reply."""
        name = device["mqtt_username"]
        password = password or device["mqtt_password"]
        return self.ask(url, "user", username=name, clientid=name, password=password)

    def publish(self, url: str, device: dict[str, Any], topic: str | None = None) -> int:
        """Ask for the right of *device* to publish to *topic* (default: its data), and return the status."""
        name = device["mqtt_username"]
        topic = topic or device["topics"]["data"]
        return self.ask(url, "acl", username=name, clientid=name, topic=topic, acc=2)

    def ready(self, url: str) -> tuple[int, dict[str, Any]]:
        """Return status and document of /readyz at *url*."""
        answer = CLIENT.get(f"{url}/readyz")
        return answer.status_code, answer.json()

    def settled_reads(self, url: str, device: Any) -> float:
        """Log *device* in until no login reads for two beats, and return the number of reads.

        A new listening session, as after an ALTER TABLE of another test, reads once more.
        """
        since, reads = time.monotonic(), -1.0
        end = since + 20
        while time.monotonic() - since < 2 * changes.BEAT:
            assert time.monotonic() < end
            assert self.login(url, device) == OK
            if (now := self.memory(url, "reads")) != reads:
                since, reads = time.monotonic(), now
            time.sleep(0.05)
        return reads

    def memory(self, url: str, event: str) -> float:
        """Return the counter devicehub_auth_memory_total of *event* at *url*."""
        wanted = f'devicehub_auth_memory_total{{event="{event}"}} '
        [line] = [line for line in CLIENT.get(f"{url}/metrics").text.splitlines() if line.startswith(wanted)]
        return float(line.removeprefix(wanted))


def listens(site: Site, url: str) -> bool:
    """Return whether the process at *url* is ready and has no notes, so listens for notifications."""
    code, said = site.ready(url)
    return code == 200 and said["notes"] == []
