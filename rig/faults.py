"""The table of faults of ingest, none of which may lose a message.

A nemesis injects one fault and heals it again; the promises, the same for all, are in rig/scenarios.py.
"""

from __future__ import annotations

import pkgutil
import signal
import time
from pathlib import Path

from devicehub.ingest.failpoints import STAGES
from devicehub.messages.message import MAX_KEPT
from fleet import migrations
from rig import flushes, servers
from rig.databases import DEVICE, QUARANTINE, READINGS, PostgresqlDatabase, SqliteDatabase
from rig.proxy import BOTH_WAYS, TO_CLIENT, TO_SERVER, Proxy
from rig.scenarios import KEEPALIVE, RESUME_SECONDS, Rig, Scenario, tail, until

NUISANCE = {"DJANGO_SETTINGS_MODULE": "rig.nuisance.settings"}
NEXT = "rig.nuisance.next_release"
RELEASED = max(module.name for module in pkgutil.iter_modules(migrations.__path__))
MEMORY = 256 << 20  # bytes that a worker may take
KILLS = 50  # of each kind and database, in a bench


# --- The worker


def kill_at_a_stage(rig: Rig) -> None:
    """Kill the worker when a batch reaches a stage, the stages in turn."""
    stage = STAGES[rig.rounds % len(STAGES)]
    if rig.worker.running:  # the first worker, or that of the last round
        rig.kill(rig.worker)
    rig.worker.start(subscribed=False, DEVICEHUB_FAILPOINT=f"{stage}:{rig.draw.randint(1, 4)}")
    rig.kills += 1
    if rig.worker.wait() != -signal.SIGKILL:
        rig.complain(f"it did not die at stage {stage}: {tail(rig.worker)}")
        rig.worker.close()
    if rig.rounds % len(STAGES) == len(STAGES) - 1:
        rig.worker.start()
        rig.measure_recovery()


def kill_at_random(rig: Rig) -> None:
    """Kill the worker at any moment, and start it again."""
    rig.wait(rig.draw.uniform(0.1, 1))
    rig.kill(rig.worker)
    rig.wait(rig.draw.uniform(0, 0.3))
    rig.worker.start()
    rig.measure_recovery()


def roll(rig: Rig) -> None:
    """Stop the worker in order and start it again, like an update."""
    rig.wait(rig.draw.uniform(0.1, 1))
    rig.stop(rig.worker)
    rig.worker.start()
    rig.measure_recovery()


def kill_one_of_two(rig: Rig) -> None:
    """Kill one worker; the other one stores meanwhile, and the messages of the killed one come after its start."""
    rig.wait(rig.draw.uniform(0.1, 1))
    victim = rig.draw.choice(rig.workers)
    rig.kill(victim)
    rig.measure_recovery()
    rig.wait(rig.seconds(0.5, 5))
    victim.start()
    rig.measure_recovery()


def start_twice(rig: Rig) -> None:
    """Start a second worker of the same number: the broker admits only one, and they must not take turns."""
    watched, most = 6.0, 5  # the workers cannot see each other, so they retry with growing pauses
    before = rig.to_broker.accepted
    second = rig.new_worker(1)
    try:
        second.start()
    except servers.ServerFailed as refused:
        if "client id" not in str(refused):
            rig.complain(f"the second worker does not log why it ended: {refused}")
    rig.wait(watched)
    connections = rig.to_broker.accepted - before
    if connections > most:
        rig.complain(f"{connections} connections in {watched:g} s: two workers throw each other out")
    if not (rig.worker.running or second.running):
        rig.complain(f"both workers ended: {tail(rig.worker)}")
    elif not rig.worker.running:  # the second worker took over
        rig.worker.close()
        rig.workers[0], second = second, rig.worker
    rig.measure_recovery()
    if second.running:
        rig.stop(second)
        rig.measure_recovery()


def run_out_of_files(rig: Rig) -> None:
    """Let the worker open no file and no connection, and break those to broker and database."""
    worker = rig.worker
    worker.mark_log()
    with worker.without_files():
        with rig.database.refusing(QUARANTINE):
            if not worker.logs("ingest.not_stored", 10):
                rig.complain(f"it does not log that it cannot store: {tail(worker)}")
        rig.to_broker.reset()
        if not worker.logs("Too many open files", 10):
            rig.complain(f"it does not log that it can open nothing: {tail(worker)}")
        rig.wait(rig.seconds(1, 20))
    rig.measure_recovery()


# --- The database


def acknowledge_in_order(rig: Rig) -> None:
    """Check in a trace that each ack is sent after the flush of its message, so that no power loss loses it."""
    rig.stop(rig.worker)
    rig.worker.start(subscribed=False)
    with servers.strace(rig.worker.pid, flushes.STRACE, rig.folder) as trace:
        if not rig.worker.logs("connected to"):
            rig.complain(f"it does not connect while it is traced: {tail(rig.worker)}")
        rig.wait(rig.seconds(1, 5))
        rig.sender.pause()
        end = time.monotonic() + 30
        while _acks_in(trace, rig).seen < 50 and time.monotonic() < end:  # a traced worker is slow
            rig.sender.resume()
            rig.wait(1)
            # Without a pause the trace may grow faster than it is read, and reading it would never end.
            rig.sender.pause()
    rig.sender.resume()
    seen, early = _acks_in(trace, rig)
    if early:
        rig.complain(f"{len(early)} of {seen} acks were sent before the flush of their message: {early[:10]}")
    if seen < 50:
        rig.complain(f"only {seen} acks in the trace, too few for a test")
    rig.measure_recovery()


def _acks_in(trace: Path, rig: Rig) -> flushes.Acks:
    """Return how many acks are in *trace*, and the numbers of the messages that were acknowledged too early."""
    port = None if rig.to_database is None else rig.to_database.port
    storage = flushes.WriteAheadLog() if port is None else flushes.CommitAnswers(port)
    with trace.open() as lines:
        return flushes.acks((line.rstrip("\n") for line in lines), rig.to_broker.port, storage)


def lock_out(rig: Rig) -> None:
    """Hold the lock that storing needs, like a backup, a migration or an open shell."""
    with rig.database.locked():
        rig.wait(rig.seconds(3, 30))
    rig.measure_recovery()


def refuse_quarantine(rig: Rig) -> None:
    """Make the quarantine refuse rows, while all other tables accept them."""
    rig.worker.mark_log()
    with rig.database.refusing(QUARANTINE):
        if not rig.worker.logs("ingest.not_stored", 10):
            rig.complain(f"it does not log that the quarantine refuses rows: {tail(rig.worker)}")
        rig.wait(rig.seconds(1, 20))
    rig.measure_recovery()


def fail_to_write(rig: Rig) -> None:
    """Make writes fail, as on a file system that became read-only after a disk error, and then flushes."""
    for harm in "pwrite64:error=EROFS", "fdatasync:error=EIO":
        rig.worker.mark_log()
        with servers.strace(rig.worker.pid, ["--trace=pwrite64,fdatasync", f"--inject={harm}"], rig.folder):
            if not rig.worker.logs("disk I/O error", 10):
                rig.complain(f"it does not log {harm}: {tail(rig.worker)}")
            rig.wait(rig.seconds(0.5, 20))
        rig.measure_recovery()


def refuse_files(rig: Rig) -> None:
    """Start the worker while it may not write the files of the database."""
    assert isinstance(rig.database, SqliteDatabase)
    rig.stop(rig.worker)
    with rig.database.read_only():
        rig.worker.start(subscribed=False)
        if not rig.worker.logs("attempt to write a readonly database", 10):
            rig.complain(f"it does not log that it may not write: {tail(rig.worker)}")
        rig.wait(rig.seconds(0.5, 20))
    rig.measure_recovery()


def fill_disk(rig: Rig) -> None:
    """Fill the disk of the database, and free it again."""
    disk = rig.database.disk
    assert disk is not None
    rig.worker.mark_log()
    disk.fill()
    if not rig.worker.logs("ingest.not_stored", 20):
        rig.complain(f"it does not log that the disk is full: {tail(rig.worker)}")
    rig.wait(rig.seconds(0.5, 10))
    disk.free()
    rig.measure_recovery()


def stop_database(rig: Rig) -> None:
    """Stop PostgreSQL by its fast shutdown, for a while or only for a restart."""
    cluster = _postgresql(rig).cluster
    assert cluster is not None
    cluster.stop()
    if rig.rounds % 2 == 0:
        rig.wait(rig.seconds(2, 10))
    cluster.start()
    rig.measure_recovery()


def crash_database(rig: Rig) -> None:
    """Stop PostgreSQL by its immediate shutdown, and let it recover."""
    cluster = _postgresql(rig).cluster
    assert cluster is not None
    cluster.crash()
    rig.wait(rig.seconds(0.5, 5))
    cluster.start()
    rig.measure_recovery()


def kill_backend(rig: Rig) -> None:
    """End the session of the worker at PostgreSQL."""
    rig.wait(rig.draw.uniform(0.1, 0.5))
    if not until(_postgresql(rig).end_sessions, 10):
        rig.complain("the worker has no session to kill")
    rig.measure_recovery()


def slow_database(rig: Rig) -> None:
    """Delay every piece on its way to PostgreSQL and back."""
    assert rig.to_database is not None
    rig.to_database.delay = rig.seconds(0.2, 0.5)
    rig.wait(rig.seconds(3, 10))
    rig.to_database.delay = 0
    rig.measure_recovery()


def silent_database(rig: Rig) -> None:
    """Silence the connection to PostgreSQL, and then reset it, as after a crash and restart of its machine."""
    assert rig.to_database is not None
    rig.to_database.silence(*BOTH_WAYS)
    rig.wait(rig.seconds(2, 10))
    rig.to_database.reset()
    rig.measure_recovery()


def pause_database(rig: Rig) -> None:
    """Pause all processes of PostgreSQL: connections stay open and nothing answers."""
    cluster = _postgresql(rig).cluster
    assert cluster is not None
    with cluster.paused():
        rig.wait(rig.seconds(3, 15))
    rig.measure_recovery()


def _postgresql(rig: Rig) -> PostgresqlDatabase:
    assert isinstance(rig.database, PostgresqlDatabase)
    return rig.database


def migrate(rig: Rig) -> None:
    """Migrate to the next release under a running worker, restart it, and in a bench migrate back."""
    _migrate(rig)
    if not rig.database.has(DEVICE, "owner"):
        rig.complain("nothing was migrated")
    rig.measure_recovery()
    rig.stop(rig.worker)
    rig.worker.start()
    rig.measure_recovery()
    if rig.longer:
        _migrate(rig, RELEASED)
        rig.measure_recovery()


def _migrate(rig: Rig, *release: str) -> None:
    """Migrate; repeat it as long as PostgreSQL ends it because of a deadlock with the worker."""
    held = f"{rig.seconds(0.5, 8):.1f}"
    while True:
        code, said = rig.manage("migrate", "fleet", *release, DJANGO_SETTINGS_MODULE=NEXT, HELD=held)
        if not code:
            return
        if "deadlock detected" not in said:
            rig.complain(f"migrate ended with {code}: {said[-600:]}")
            return


# --- The broker and the way to it


def restart_broker(rig: Rig) -> None:
    """Stop the broker in order and start it again."""
    rig.broker.stop()
    rig.wait(rig.seconds(0.5, 10))
    rig.broker.start()
    rig.measure_recovery()


def kill_broker(rig: Rig) -> None:
    """Kill the broker while it holds a backlog that is on its disk: losses of the broker itself are not ours.

    The backlog is queued for an absent worker: a killed Mosquitto 2.0.11 loses messages that it has handed over to
    a client with a larger receive maximum than its own, although it saves after every change.
    """
    rig.stop(rig.worker)
    rig.wait(0.7)
    rig.sender.pause()
    rig.wait(1)
    rig.broker.kill()
    rig.broker.start()
    rig.worker.start()
    rig.sender.resume()
    rig.measure_recovery()


def cut(rig: Rig) -> None:
    """Cut the network to the broker for a while."""
    with rig.to_broker.cut():
        rig.wait(rig.seconds(2, 20))
    rig.measure_recovery()


def reset(rig: Rig) -> None:
    """Reset the connections to the broker, and then the next ones after some bytes, also within a packet."""
    _reset(rig, rig.to_broker, 3000)


def reset_database(rig: Rig) -> None:
    """Reset the connections to PostgreSQL, also between a COMMIT and its answer."""
    assert rig.to_database is not None
    _reset(rig, rig.to_database, 200_000)


def _reset(rig: Rig, proxy: Proxy, most: int) -> None:
    proxy.doom = lambda: rig.draw.randint(20, most)
    proxy.reset()
    rig.wait(rig.seconds(2, 10))
    proxy.doom = lambda: 0
    proxy.reset()
    rig.measure_recovery()


def half_open(rig: Rig) -> None:
    """Silence the connection to the broker in one or both directions; only the keep-alive can find that out."""
    choices = [BOTH_WAYS, (TO_SERVER,), (TO_CLIENT,)]
    rig.to_broker.silence(*choices[rig.rounds % 3])
    rig.measure_recovery()


def slow_broker(rig: Rig) -> None:
    """Slow the network to the broker down: half a second late, 5 kB/s."""
    rig.to_broker.delay, rig.to_broker.rate = 0.5, 5_000
    rig.wait(rig.seconds(3, 15))
    rig.to_broker.delay, rig.to_broker.rate = 0, 0
    rig.measure_recovery()


def trickle(rig: Rig) -> None:
    """Pass one byte per second each way, so that no packet is ever complete."""
    rig.to_broker.rate = 1
    rig.wait(rig.seconds(2, 40))
    rig.to_broker.rate = 0
    rig.measure_recovery()


# --- Messages of the devices, and their times


def pile_up(rig: Rig) -> None:
    """Queue payloads of 1 MiB for an absent worker, more than it may hold at once, and start it."""
    rig.stop(rig.worker)
    rate, rig.sender.rate = rig.sender.rate, 60
    rig.sender.padding = MAX_KEPT - 200
    rig.wait(rig.seconds(1, 4))
    rig.sender.rate, rig.sender.padding = rate, 0
    rig.worker.start()
    rig.measure_recovery()
    if rig.worker.most_memory > MEMORY:
        rig.complain(f"it took {rig.worker.most_memory >> 20} MiB of memory, not {MEMORY >> 20}")


def repeat(rig: Rig) -> None:
    """Send messages again, as devices do."""
    rig.wait(1)
    rig.sender.repeat(100)
    rig.wait(1)
    rig.measure_recovery()


def shuffle(rig: Rig) -> None:
    """Send readings of the last three days in random order; `last_seen` must never go back."""
    rig.sender.age = lambda: rig.draw.uniform(0, 3 * 86_400)
    seen = rig.database.last_seen()
    for _ in range(20):
        rig.wait(0.1)
        now = rig.database.last_seen()
        back = [device for device in seen if now[device] < seen[device]]
        if back:
            rig.complain(f"last_seen went back for {back}")
        seen = now
    rig.sender.age = lambda: 0.0
    rig.measure_recovery()


def jump_clock(rig: Rig) -> None:
    """Set the clock of the worker wrong by an hour and by eleven years, both ways, and then right again."""
    for offset in ("+1h", "-1h", "+11y", "-11y", "+0"):
        rig.clock.write_text(offset)
        rig.wait(1.5)
        rig.measure_recovery()
    [[years]] = rig.database.query(
        f"SELECT count(DISTINCT substr(CAST(received_at AS text), 1, 4)) FROM {READINGS}"
    )
    if years < 3:
        rig.complain("the clock of the worker did not jump")


# --- Hooks and receivers


def listen_badly(rig: Rig) -> None:
    """Let a hook and a receiver raise at each message."""
    log = rig.worker.log
    if not until(lambda: {"hook_failed", "receiver_failed"} <= _words(log.read_text()), 10):
        rig.complain(f"it does not log both the hook and the receiver that fail: {tail(rig.worker)}")
    rig.wait(rig.seconds(1, 5))
    rig.measure_recovery()


def _words(log: str) -> set[str]:
    return {word for word in ("hook_failed", "receiver_failed") if word in log}


def listen_for_ever(rig: Rig) -> None:
    """Let a receiver never return."""
    rig.wait(1)
    rig.measure_recovery()
    rig.wait(rig.seconds(1, 15))
    rig.measure_recovery()


SQLITE, PG = ("sqlite",), ("postgresql",)
BOTH = SQLITE + PG
SCENARIOS = (
    Scenario("kill-stages", "F1", kill_at_a_stage, "kill -9 at each stage of a batch",
             rounds=len(STAGES), least=9 * len(STAGES), often=BOTH),
    Scenario("kill-random", "F2", kill_at_random, "kill -9 under load", rounds=2, least=KILLS,
             version="3.1.1", group=""),
    Scenario("rolling-restart", "F3", roll, "SIGTERM and a new start under load", rounds=2),
    Scenario("two-workers", "F2", kill_one_of_two, "kill -9 of one of two on a shared subscription",
             workers=2, often=SQLITE),
    Scenario("same-client-id", "F17", start_twice, "a second worker with the same client id",
             breaks=True),
    Scenario("files-run-out", "F22", run_out_of_files, "the worker can open no file and no connection",
             breaks=True),
    Scenario("flush-order", "F9", acknowledge_in_order, "each ack after the flush, in a trace of system calls",
             often=BOTH),
    Scenario("database-locked", "F5, F6", lock_out, "another program locks the table or the file", often=BOTH),
    Scenario("quarantine-refuses", "F24", refuse_quarantine, "the table of the quarantine refuses rows"),
    Scenario("writes-fail", "F8, F9", fail_to_write, "writes or flushes of the disk fail", SQLITE, often=SQLITE),
    Scenario("files-refused", "F8", refuse_files, "the worker may not write the database", SQLITE),
    Scenario("disk-full", "F7", fill_disk, "the disk of the database is full for a while", small=True, often=SQLITE),
    Scenario("migration", "F16", migrate, "tables are migrated under a running worker", often=PG),
    Scenario("database-stopped", "F4", stop_database, "PostgreSQL stopped or restarted", PG, rounds=2, often=PG),
    Scenario("database-crashed", "F4", crash_database, "PostgreSQL stopped at once, and recovered", PG),
    Scenario("backend-killed", "F4", kill_backend, "the worker's session at PostgreSQL is ended", PG,
             rounds=3),
    Scenario("database-reset", "F4, F11", reset_database, "connections to PostgreSQL are reset, also in a commit", PG),
    Scenario("database-slow", "F5", slow_database, "every packet to and from PostgreSQL is late", PG),
    Scenario("database-silent", "F5", silent_database, "PostgreSQL does not answer any more", PG),
    Scenario("database-paused", "F5", pause_database, "PostgreSQL is paused", PG, often=PG),
    Scenario("broker-restarted", "F10", restart_broker, "Mosquitto restarted, persistent", group="",
             persistent=True, breaks=True),
    Scenario("broker-killed", "F10", kill_broker, "kill -9 of Mosquitto, persistent", group="",
             persistent=True, breaks=True, often=SQLITE),
    Scenario("network-cut", "F11", cut, "no network to the broker for a while", breaks=True),
    Scenario("network-reset", "F11", reset, "connections to the broker are reset, also within a packet", breaks=True),
    Scenario("network-half-open", "F11", half_open, "a dead connection that stays open",
             limit=1.5 * KEEPALIVE + RESUME_SECONDS, breaks=True, often=SQLITE),
    Scenario("network-slow", "F11", slow_broker, "half a second late, 5 kB/s"),
    Scenario("network-trickle", "F11", trickle, "one byte per second", breaks=True,
             limit=1.5 * KEEPALIVE + RESUME_SECONDS),
    Scenario("large-backlog", "F21", pile_up, "payloads of 1 MiB wait for a worker that starts"),
    Scenario("duplicates", "F12", repeat, "devices repeat acknowledged messages"),
    Scenario("out-of-order", "F13", shuffle, "readings of the last days in random order"),
    Scenario("clock-jump", "F15", jump_clock, "the worker's clock jumps by an hour and by years", dated=False,
             clock=True, environment=NUISANCE),
    Scenario("hook-raises", "F23", listen_badly, "a hook and a receiver that raise",
             environment=NUISANCE | {"NUISANCE": "raise"}),
    Scenario("hook-blocks", "F23", listen_for_ever, "a receiver that never returns",
             environment=NUISANCE | {"NUISANCE": "block"}),
)  # fmt: skip
