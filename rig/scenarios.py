"""A fleet, a broker, a database and ingest workers as real processes, a fault, and the comparison of sets.

lost    = acknowledged by the broker - readings - quarantine     must be empty
phantom = readings and quarantine - sent messages                must be empty
extra   = rows of one message beyond the first                   none with a device time; without one, at most as
          many as were handed over and not acknowledged when a connection of the worker ended
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

# The queue drops nothing, and the broker sends each client its keep-alive.
MOSQUITTO = """\
max_queued_messages 0
max_keepalive {keepalive}
"""
# The broker writes to its disk after every change, so acknowledged messages are there.
PERSISTENT = """\
persistence true
persistence_location {folder}/
autosave_interval 1
autosave_on_changes true
"""
KEEPALIVE = 10  # seconds; Mosquitto takes no less
RESUME_SECONDS = 10  # P3
STOP_SECONDS = 10  # for a worker to stop in order
CLOCK = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
PATIENCE = 40  # seconds until a wait ends without success
CALM = 0.4  # seconds without a new row; then no redelivery is on its way


def until(probe: Callable[[], Any], seconds: float | None = None) -> Any:
    """Call *probe* until it is true or *seconds* are over, and return its last value."""
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while not (value := probe()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


class Worker:
    """`manage.py listen_mqtt`, which can be stopped in several ways and started again."""

    def __init__(self, number: int, environment: dict[str, str], folder: Path) -> None:
        manage = [sys.executable, "manage.py", "listen_mqtt", "--worker", str(number)]
        self._command = [*servers.heeding_permissions(), *manage]
        self._environment, self._folder, self._number = environment, folder, number
        self._starts = self._log_start = 0
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, subscribed: bool = True, **more: str) -> None:
        """Start it, and wait until it is connected if *subscribed*. *more* is added to its environment."""
        self._starts += 1
        self._log_start = 0
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
        """The log of its last start."""
        return self._folder / f"listen_mqtt-{id(self)}-{self._number}-{self._starts}.log"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def started(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send it the signal *number*."""
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def most_memory(self) -> int:
        """The peak of its resident memory in bytes."""
        [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(line) * 1024

    @contextmanager
    def without_files(self) -> Iterator[None]:
        """Keep it from opening further files; the open ones stay."""
        soft, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (3, hard))
        yield
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def mark_log(self) -> None:
        """Let logs() ignore the present lines."""
        self._log_start = self.log.stat().st_size

    def logs(self, text: str, seconds: float = PATIENCE) -> bool:
        """Return whether *text* is in its log before *seconds* are over."""
        return bool(until(lambda: text.encode() in self.log.read_bytes()[self._log_start :], seconds))

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Wait for its end and return the exit code, or None if it has not ended after *seconds*."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        code = self._process.poll()
        if code is not None:
            self._gone()
        return code

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.signal(signal.SIGKILL)
        self.wait()

    def _gone(self) -> None:
        self._stack.close()
        self._process = None

    def close(self) -> None:
        """Kill it if it runs."""
        if self.running:
            self.kill()
        self._gone()


@dataclass(frozen=True)
class Scenario:
    """A fault and its environment. *nemesis* injects it once, heals it and returns.

    *rounds* is the number of rounds in a test; a bench repeats for its seconds, and at least *least* times. *breaks*
    is whether acks can be lost behind the proxy, which cannot count them: then the whole window of a worker may come
    twice. A take-over breaks, too: the broker closes the older connection without reading its last bytes.
    *limit* is the number of seconds until the worker must store again. *often* are the databases on which a plain
    `script/test` runs it: of several faults that need the same recovery of the same part, it runs one.
    """

    name: str
    fault: str
    nemesis: Callable[[Rig], None]
    about: str
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    often: tuple[str, ...] = ()
    rounds: int = 1
    least: int = 1
    breaks: bool = False
    limit: float = RESUME_SECONDS
    version: str = "5"
    group: str = "devicehub"
    workers: int = 1
    dated: bool = True  # whether each reading must have its device time
    persistent: bool = False  # whether the broker keeps its queue on disk
    small: bool = False  # whether the database is on a small disk
    clock: bool = False  # whether the workers' clock can be set wrong
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """The fate of all messages of a run.

    *duplicated* are extra rows of messages with a time, *repeated* of those without; *allowed* of the latter may be.
    """

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
    resumed: float  # the longest wait in seconds until it stored again
    complaints: list[str]

    @property
    def held(self) -> bool:
        """Whether all promises are kept."""
        fine = self.repeated <= self.allowed and not self.duplicated
        return fine and not (self.lost or self.phantom or self.complaints)


class Rig:
    """The processes of a scenario, which its nemesis controls."""

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
        """Return a worker that is not started."""
        worker = Worker(number, self._environment, self.folder)
        self._stack.callback(worker.close)
        return worker

    def begin(self) -> None:
        """Start the workers and the fleet; its messages count from the first stored one on."""
        for worker in self.workers:
            worker.start()
        self.sender.start()
        if not until(lambda: self.newest() >= 0, RESUME_SECONDS):
            self.complain(f"nothing is stored before the first fault: {tail(self.worker)}")
        self.sender.start_counting()

    def manage(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Run `manage.py` beside the workers, and return its exit code and output."""
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
        """The first worker."""
        return self.workers[0]

    def close(self) -> None:
        """Stop all processes."""
        self._stack.close()

    def complain(self, text: str) -> None:
        """Add a complaint about the present round to the report."""
        self.complaints.append(f"round {self.rounds + 1}: {text}")

    def kill(self, worker: Worker) -> None:
        """Kill *worker*, and count that."""
        self.kills += 1
        worker.kill()

    def stop(self, worker: Worker) -> None:
        """Stop *worker* in order; complain unless it ends with 0 and in time."""
        began = time.monotonic()
        worker.signal(signal.SIGTERM)
        code = worker.wait(STOP_SECONDS)
        if code != 0:
            end = f"ended with {code}" if code is not None else "still ran"
            self.complain(f"a worker {end} {time.monotonic() - began:.1f} s after SIGTERM: {tail(worker)}")
            worker.close()

    def seconds(self, short: float, long: float) -> float:
        """Return the length of an outage: *short* in a test, drawn up to *long* in a bench."""
        return self.draw.uniform(short, long) if self.longer else short

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def measure_recovery(self) -> None:
        """Measure the time until a message that is sent from now on is stored; complain if it is too long."""
        before, began = len(self.sender.sent), time.monotonic()
        until(lambda: self.newest() >= before)
        self.resumed.append(time.monotonic() - began)
        if self.resumed[-1] > self.scenario.limit:
            self.complain(
                f"stored again after {self.resumed[-1]:.1f} s, not within {self.scenario.limit:g} s"
            )

    def newest(self) -> int:
        """Return the highest number among the readings, or -1 while the database does not answer."""
        try:
            return self.database.newest()
        except Unavailable:
            return -1

    def drain(self) -> None:
        """Wait until all acknowledged messages are stored and no redelivery comes."""
        self.sender.pause()
        for worker in self.workers:
            if worker.started and not worker.running:
                self.complain(f"a worker had ended: {tail(worker)}")
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
        """Compare the sets, and return the report."""
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
    """Return the end of the log of *worker*."""
    return worker.log.read_text(errors="replace")[-600:] if worker.log.exists() else "(nothing)"


def judge(
    sent: dict[int, Sent], acknowledged: set[int], found: Stored, *, dated: bool = True
) -> dict[str, Any]:
    """Compare the sets, and return the result as fields of a Report."""
    rows = Counter(number for number, _ in found.readings)
    quarantined = Counter(found.quarantined)
    there = rows.keys() | quarantined.keys()
    complaints = []
    if found.messages != len(found.readings):
        complaints.append(
            f"{found.messages} messages and {len(found.readings)} readings, which must be equal"
        )
    misplaced = [n for n in rows if n in sent and not sent[n].usable]
    misplaced += [n for n in quarantined if n in sent and sent[n].usable]
    if misplaced:
        complaints.append(f"unusable messages as readings, or usable ones in quarantine: {misplaced[:10]}")
    if dated:
        wrong = [n for n, when in found.readings if n in sent and sent[n].timestamp not in (None, when)]
        if wrong:
            complaints.append(f"readings without their device time: {wrong[:10]}")
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
    """Run *scenario* for its rounds, or for *seconds* if given. Raise servers.MissingServer."""
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
