"""A fleet, a broker, a database and ingest workers as real processes, something that harms them, and the set check.

lost    = what the broker acknowledged - readings - quarantine     must be empty
phantom = readings and quarantine - what was sent                  must be empty
extra   = rows of one message beyond the first                     none with a device time; without one, at most
          as many as were handed over and not acknowledged when a connection of the worker ended
"""

from __future__ import annotations

import os
import random
import re
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devicehub.mqtt import RECEIVE_MAXIMUM
from rig import servers
from rig.databases import Database, Databases, Stored, Unavailable
from rig.ledger import Ledger
from rig.proxy import Link, Proxy
from rig.sender import Sender, Sent
from rig.serving import ROOT

# Nothing is dropped from a queue, and a client hears of its keep-alive from the broker.
MOSQUITTO = """\
max_queued_messages 0
max_keepalive {keepalive}
"""
# What it acknowledged is on its disk, after every change.
PERSISTENT = """\
persistence true
persistence_location {folder}/
autosave_interval 1
autosave_on_changes true
"""
KEEPALIVE = 10  # seconds; Mosquitto takes no less
RESUME_SECONDS = 10  # P3
STOP_SECONDS = 10  # that a worker may take to end in order
CLOCK = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
PATIENCE = 40  # seconds after which something is said not to happen
CALM = 0.4  # seconds without a further row, after which no redelivery is on its way


def until(probe: Callable[[], Any], seconds: float | None = None) -> Any:
    """What *probe* returns as soon as it is true; its last value when the time is over."""
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while not (value := probe()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


class Worker:
    """`manage.py listen_mqtt`, which can be ended in several ways and started again."""

    def __init__(self, number: int, environment: dict[str, str], folder: Path) -> None:
        manage = [sys.executable, "manage.py", "listen_mqtt", "--worker", str(number)]
        self._command = [*servers.heeding_permissions(), *manage]
        self._environment, self._folder, self._number = environment, folder, number
        self._starts = self._heard = 0
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, subscribed: bool = True, **more: str) -> None:
        """From when it is *subscribed*, or at once."""
        self._starts += 1
        self._heard = 0
        log = self.log
        self._process = self._stack.enter_context(
            servers.process(
                self._command,
                env=self._environment | more,
                cwd=ROOT,
                log=log,
                ready=lambda: not subscribed or b"connected to" in log.read_bytes(),
            )
        )

    @property
    def log(self) -> Path:
        """Of its last start."""
        return self._folder / f"listen_mqtt-{id(self)}-{self._number}-{self._starts}.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def started(self) -> bool:
        """Whether it should be running."""
        return self._process is not None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def most_memory(self) -> int:
        """Bytes that it has ever held at once."""
        [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(line) * 1024

    @contextmanager
    def without_files(self) -> Iterator[None]:
        """It keeps what it has open, and can open nothing more."""
        soft, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (3, hard))
        yield
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def listen(self) -> None:
        """says() leaves out what it said until now."""
        self._heard = self.log.stat().st_size

    def says(self, text: str, seconds: float = PATIENCE) -> bool:
        """Whether it said *text*, or does before *seconds* are over."""
        return bool(until(lambda: text.encode() in self.log.read_bytes()[self._heard :], seconds))

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit code once it ended; None when it did not."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        code = self._process.poll()
        if code is not None:
            self._gone()
        return code

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def _gone(self) -> None:
        self._stack.close()
        self._process = None

    def close(self) -> None:
        """However it stands."""
        if self.running:
            self.kill()
        self._gone()


@dataclass(frozen=True)
class Scenario:
    """A fault, and what it is done to. *nemesis* does it once and ends when it is healed.

    *rounds* is how often in a test; a bench goes on for its seconds and at least *least* times. *breaks* is whether
    acks can be lost behind the proxy, where nobody counts them: then a worker's whole window may come twice. A
    take-over breaks, too: the broker closes the older connection without reading what has come in on it.
    *limit* is the seconds until it stores again.
    """

    name: str
    fault: str
    nemesis: Callable[[Rig], None]
    about: str
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    rounds: int = 1
    least: int = 1
    breaks: bool = False
    limit: float = RESUME_SECONDS
    version: str = "5"
    group: str = "devicehub"
    workers: int = 1
    dated: bool = True  # whether each reading must bear the time that its device said
    persistent: bool = False  # whether the broker keeps its queue on disk
    small: bool = False  # whether the database is on a small disk
    clock: bool = False  # whether the workers' clock can be set wrong
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """What became of all messages of a run. *duplicated* are rows too many of messages with a time, *repeated* of
    those without, of which *allowed* are."""

    scenario: str
    database: str
    seed: int
    rounds: int
    kills: int
    sent: int
    acknowledged: int
    stored: int
    quarantined: int
    duplicated: int
    repeated: int
    allowed: int
    lost: list[int]
    phantom: list[int | None]
    resumed: float  # seconds, the longest
    complaints: list[str]

    @property
    def held(self) -> bool:
        """Whether everything is as promised."""
        fine = self.repeated <= self.allowed and not self.duplicated
        return fine and not (self.lost or self.phantom or self.complaints)


class Rig:
    """What a nemesis gets into its hands."""

    def __init__(
        self,
        scenario: Scenario,
        database: Database,
        topics: list[str],
        folder: Path,
        seed: int,
        *,
        longer: bool,
    ) -> None:
        self.scenario, self.database, self.folder = scenario, database, folder
        self.longer = longer  # whether there is time for long outages
        self.draw = random.Random(seed)
        self.rounds = self.kills = 0
        self.resumed: list[float] = []
        self.complaints: list[str] = []
        self._stack = ExitStack()
        try:
            self._set_up(topics)
        except BaseException:
            self._stack.close()
            raise

    def _set_up(self, topics: list[str]) -> None:
        configuration = MOSQUITTO.format(keepalive=KEEPALIVE)
        if self.scenario.persistent:
            configuration += PERSISTENT.format(folder=self.folder)
        self.broker = self._stack.enter_context(servers.mosquitto_broker(self.folder, configuration))
        self.ledgers: dict[Link, Ledger] = {}
        self.to_broker = self._proxy(Proxy(self.broker.port, self._note))
        self.to_database = None if self.database.port is None else self._proxy(Proxy(self.database.port))
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "DATABASE_URL": self.database.url(None if self.to_database is None else self.to_database.port),
            "MQTT_URL": f"mqtt://127.0.0.1:{self.to_broker.port}",
            "DEVICEHUB_MQTT_VERSION": self.scenario.version,
            "DEVICEHUB_MQTT_GROUP": self.scenario.group,
            "PYTHONUNBUFFERED": "1",
            **self.scenario.environment,
        }
        if self.scenario.clock:
            self.clock = self.folder / "clock"
            self.clock.write_text("+0")
            self._environment |= {
                "LD_PRELOAD": servers.faketime(),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                **CLOCK,
            }
        self.workers = [self.new_worker(number) for number in range(1, self.scenario.workers + 1)]
        self.sender = Sender(self.broker.port, topics, self.draw, rate=300 if self.longer else 150)
        self._stack.callback(self.sender.end)

    def _proxy(self, proxy: Proxy) -> Proxy:
        self._stack.callback(proxy.close)
        return proxy

    def _note(self, link: Link, direction: str, piece: bytes) -> None:
        self.ledgers.setdefault(link, Ledger()).note(direction, piece)

    def new_worker(self, number: int) -> Worker:
        """Not started yet."""
        worker = Worker(number, self._environment, self.folder)
        self._stack.callback(worker.close)
        return worker

    def begin(self) -> None:
        """Start the workers and the fleet, whose messages count once one of them was stored."""
        for worker in self.workers:
            worker.start()
        self.sender.start()
        if not until(lambda: self.newest() >= 0, RESUME_SECONDS):
            self.complain(f"nothing is stored before the first fault: {tail(self.worker)}")
        self.sender.count()

    def manage(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Run `manage.py` beside the workers: its exit code and what it says."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env=self._environment | more,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    @property
    def worker(self) -> Worker:
        return self.workers[0]

    def close(self) -> None:
        self._stack.close()

    def complain(self, text: str) -> None:
        self.complaints.append(f"round {self.rounds + 1}: {text}")

    def kill(self, worker: Worker) -> None:
        self.kills += 1
        worker.kill()

    def stop(self, worker: Worker) -> None:
        """In order: it must end with 0 and in time."""
        began = time.monotonic()
        worker.signal(signal.SIGTERM)
        code = worker.wait(STOP_SECONDS)
        if code != 0:
            what = f"ended with {code}" if code is not None else "was not gone"
            self.complain(f"a worker {what} {time.monotonic() - began:.1f} s after SIGTERM: {tail(worker)}")
            worker.close()

    def seconds(self, short: float, long: float) -> float:
        """How long to harm: *short* in a test, anything between in a bench."""
        return self.draw.uniform(short, long) if self.longer else short

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def healed(self) -> None:
        """From now on all is well again: measure how long until something is stored that was not sent before."""
        before, began = len(self.sender.sent), time.monotonic()
        until(lambda: self.newest() >= before)
        self.resumed.append(time.monotonic() - began)
        if self.resumed[-1] > self.scenario.limit:
            self.complain(f"stored again after {self.resumed[-1]:.1f} s, not {self.scenario.limit:g}")

    def newest(self) -> int:
        """The highest number among the readings; -1 while the database does not answer."""
        try:
            return self.database.newest()
        except Unavailable:
            return -1

    def drain(self) -> None:
        """Until everything that the broker took is stored and nothing comes a second time any more."""
        self.sender.pause()
        for worker in self.workers:
            if worker.started and not worker.running:
                self.complain(f"a worker was gone: {tail(worker)}")
                worker.close()
            if not worker.running:
                worker.start()
        until(self._complete)
        rows = -1
        while (found := self.database.rows()) != rows:
            rows = found
            time.sleep(CALM)

    def _complete(self) -> bool:
        with suppress(*Unavailable):
            found = self.database.stored()
            there = {number for number, _ in found.readings} | set(found.quarantined)
            return self.sender.acknowledged <= there
        return False

    def report(self, database: str, seed: int) -> Report:
        scenario = self.scenario
        unacknowledged = sum(ledger.undated for ledger in self.ledgers.values())
        window = RECEIVE_MAXIMUM if scenario.breaks else 0
        result = judge(
            self.sender.sent, self.sender.acknowledged, self.database.stored(), dated=scenario.dated
        )
        return Report(
            scenario.name,
            database,
            seed,
            self.rounds,
            self.kills,
            allowed=unacknowledged + window * self.rounds,
            resumed=round(max(self.resumed, default=0), 1),
            complaints=self.complaints + result.pop("complaints"),
            **result,
        )


def tail(worker: Worker) -> str:
    """The end of what a worker said."""
    return worker.log.read_text(errors="replace")[-600:] if worker.log.exists() else "(nothing)"


def judge(
    sent: dict[int, Sent], acknowledged: set[int], found: Stored, *, dated: bool = True
) -> dict[str, Any]:
    """The set check, as fields of a Report."""
    rows = Counter(number for number, _ in found.readings)
    quarantined = Counter(found.quarantined)
    there = rows.keys() | quarantined.keys()
    complaints = []
    if found.messages != len(found.readings):
        complaints.append(f"{found.messages} messages and {len(found.readings)} readings: torn apart")
    misplaced = [n for n in rows if n in sent and not sent[n].usable]
    misplaced += [n for n in quarantined if n in sent and sent[n].usable]
    if misplaced:
        complaints.append(f"as a reading what is none, or in quarantine what is one: {misplaced[:10]}")
    if dated:
        wrong = [n for n, when in found.readings if n in sent and sent[n].timestamp not in (None, when)]
        if wrong:
            complaints.append(f"not at the time that the device said: {wrong[:10]}")
    keyed = {number for number, message in sent.items() if message.timestamp and message.usable}
    return {
        "sent": len(sent),
        "acknowledged": len(acknowledged),
        "stored": len(rows),
        "quarantined": len(quarantined),
        "duplicated": sum(count - 1 for number, count in rows.items() if number in keyed),
        "repeated": sum(count - 1 for number, count in rows.items() if number not in keyed)
        + sum(count - 1 for count in quarantined.values()),
        "lost": sorted(acknowledged - there),
        "phantom": list(there - sent.keys()),
        "complaints": complaints,
    }


def run(
    scenario: Scenario,
    databases: Databases,
    folder: Path,
    seed: int,
    *,
    seconds: float | None = None,
    advance: Callable[[Rig], None] = lambda _: None,
) -> Report:
    """Run *scenario*: its rounds, or for so many *seconds* where that is given. Raises servers.MissingServer."""
    folder.mkdir(parents=True, exist_ok=True)
    with databases.new(small=scenario.small) as database:
        rig = Rig(scenario, database, databases.topics, folder, seed, longer=seconds is not None)
        try:
            rig.begin()
            end = time.monotonic() + (seconds or 0)
            while rig.rounds < (scenario.rounds if seconds is None else scenario.least) or (
                seconds is not None and time.monotonic() < end
            ):
                scenario.nemesis(rig)
                rig.rounds += 1
                advance(rig)
            rig.drain()
            for worker in rig.workers:
                rig.stop(worker)
            return rig.report(databases.vendor, seed)
        finally:
            rig.close()
