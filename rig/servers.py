"""Real servers for tests: each on a free loopback port with its own folder, stopped when its context ends.

Give every server a folder of its own; its log stays there after a failed test.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from authsvc.brokers import BY_DIALECT
from rig.ports import free_port as free_port

STOP_SECONDS = 10
PROBE_SECONDS = 0.02
SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"  # mosquitto is in sbin

RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
# Added to the configuration that `create_broker` prints.
RABBITMQ_CONF = """\
listeners.tcp = none
log.console.level = info
"""
RABBITMQ_PLUGINS = "[rabbitmq_mqtt, rabbitmq_auth_backend_http].\n"

# `user root` keeps root from becoming the user mosquitto, which would also undo our --pdeathsig.
MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest stderr
user root
"""

# Only our role, with its password; the superuser is refused.
PG_HBA_CONF = "host all devicehub 127.0.0.1/32 scram-sha-256\n"


# The test that runs now, if it may not start a server because it does not carry the mark `servers`.
unmarked_test: str | None = None


class MissingServer(Exception):
    """A server is not installed; the message names its Debian package."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is not installed: apt-get install {package}")


class NotPermitted(MissingServer):
    """This user may not do something that a server needs; the message names it."""

    def __init__(self, what: str) -> None:
        Exception.__init__(self, f"not permitted: {what}")


class ServerFailed(Exception):
    """A server ended, or was not ready in time; the message ends with its last log lines."""


def accepts(port: int) -> bool:
    """Return whether a server accepts TCP connections on this loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def process(
    command: list[str],
    *,
    env: dict[str, str],
    log: Path,
    ready: Callable[[], bool],
    timeout: float = 30,
    stop_signal: int = signal.SIGTERM,
    cwd: Path | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* with exactly *env* and its output in *log*; enter the block when *ready* is true.

    An OSError from *ready* means not yet. On Linux the kernel also sends *stop_signal* when the starting
    thread dies, so a killed pytest leaves no server behind: start from a thread that outlives the server.
    *user* runs it instead of root.
    """
    if unmarked_test is not None:
        raise AssertionError(f"{unmarked_test} starts {command[0]} and needs the mark `servers`")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            _ends_with_us(command, stop_signal),
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    try:
        _wait_until_ready(server, command[0], log, ready, timeout)
        yield server
    finally:
        _stop(server, stop_signal)


class Restartable:
    """A server that can be stopped, killed and started again, with its data and on the same port."""

    def __init__(self, run: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]) -> None:
        self._run = run
        self._stack = ExitStack()
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it is ready."""
        self._server = self._stack.enter_context(self._run())

    def stop(self) -> None:
        """Stop the server in order; for PostgreSQL this is its fast shutdown, which breaks connections."""
        self._stack.close()
        self._server = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Stop the server by the signal *number*."""
        assert self._server is not None
        self._server.send_signal(number)
        self._server.wait(STOP_SECONDS)
        self.stop()


class Cluster(Restartable):
    """A PostgreSQL cluster that can also be paused. *url* is a DATABASE_URL."""

    def __init__(self, url: str, run: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]) -> None:
        super().__init__(run)
        self.url = url

    def crash(self) -> None:
        """Do PostgreSQL's immediate shutdown, which writes nothing; the next start recovers from its log."""
        self.kill(signal.SIGQUIT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause all processes: connections stay open and nothing answers."""
        assert self._server is not None
        stopped = [self._server.pid, *_children(self._server.pid)]
        for pid in stopped:
            _signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.kill(pid, number)


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found


@contextmanager
def postgresql(folder: Path, settings: Sequence[str] = ()) -> Iterator[str]:
    """Run a new PostgreSQL cluster; yield the DATABASE_URL of a role that may only create databases."""
    with postgresql_cluster(folder, settings=settings) as cluster:
        yield cluster.url


def _fill_cluster(
    data: Path, user: str | None, env: dict[str, str], password: str, tablespace: Path | None, may: str
) -> None:
    """Create the cluster in *data* with our role and its database, as *user* if that is not None."""
    initdb, postgres = _postgresql_program("initdb"), _postgresql_program("postgres")

    def run(command: list[str], stdin: str = "") -> None:
        done = subprocess.run(
            command,
            cwd=data.parent,
            env=env,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        if done.returncode:
            raise ServerFailed(f"{command[0]} ended with {done.returncode}\n{done.stdout.decode()}")

    def execute(*statements: str) -> None:
        """Execute *statements* without a server; each ends with an empty line (-j)."""
        command = [postgres, "--single", "-j", "-c", "exit_on_error=on", "-D", str(data), "postgres"]
        run(command, "".join(f"{statement};\n\n" for statement in statements))

    options = ["-U", "postgres", "-A", "reject", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
    run([initdb, "-D", str(data), *options])
    execute(
        f"CREATE ROLE devicehub LOGIN {may} PASSWORD '{password}'",
        "CREATE DATABASE devicehub OWNER devicehub",
    )
    if tablespace is not None:
        if user is not None:
            shutil.chown(tablespace, user, user)
        execute(f"CREATE TABLESPACE small OWNER devicehub LOCATION '{tablespace}'")


@contextmanager
def postgresql_cluster(
    folder: Path, tablespace: Path | None = None, settings: Sequence[str] = (), may: str = "CREATEDB"
) -> Iterator[Cluster]:
    """Run a new PostgreSQL cluster. An empty folder *tablespace* becomes its tablespace `small`.

    *settings* are written as name=value. *may* are the attributes of our role.
    """
    postgres = _postgresql_program("postgres")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "postgresql.log"
    password = secrets.token_hex(16)
    port = free_port()
    env = _environment()
    user = _user_instead_of_root()
    # Not below `folder`: PostgreSQL refuses root, and its own user cannot enter pytest's 0700 folders.
    with tempfile.TemporaryDirectory(prefix="devicehub-postgresql-", dir="/tmp") as home:
        if user is not None:
            shutil.chown(home, user, user)
        data = Path(home, "data")

        _fill_cluster(data, user, env, password, tablespace, may)
        (data / "pg_hba.conf").write_text(PG_HBA_CONF)

        def ready() -> bool:
            """Return whether the last line of postmaster.pid is ready, which `pg_ctl --wait` checks as well."""
            return (data / "postmaster.pid").read_text().split()[-1:] == ["ready"]  # it begins empty

        command = [postgres, "-D", str(data), "-p", str(port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        command += [f"--{setting}" for setting in settings]
        stop = signal.SIGINT  # PostgreSQL's fast shutdown: SIGTERM would wait for the last client to leave
        cluster = Cluster(
            f"postgres://devicehub:{password}@127.0.0.1:{port}/devicehub",
            lambda: process(
                command, env=env, log=log, ready=ready, stop_signal=stop, cwd=Path(home), user=user
            ),
        )
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def _rabbitmq_environment(folder: Path, printed: str, port: int, epmd_port: int) -> dict[str, str]:
    """Create the files of a node in *folder*, and return its environment, with all its paths in *folder*.

    The files are the *printed* ones of `create_broker`, with MQTT on loopback and *port*.
    """
    rabbitmq_conf, advanced_config = printed.split("\n\n")
    listener = "mqtt.listeners.tcp.default = "
    rabbitmq_conf = rabbitmq_conf.replace(f"{listener}1883", f"{listener}127.0.0.1:{port}")
    (folder / "rabbitmq.conf").write_text(f"{rabbitmq_conf}\n{RABBITMQ_CONF}")
    (folder / "advanced.config").write_text(advanced_config)
    (folder / "enabled_plugins").write_text(RABBITMQ_PLUGINS)
    (folder / "rabbitmq-env.conf").touch()  # empty, so that the one in /etc is not read
    cookie = folder / ".erlang.cookie"
    cookie.unlink(missing_ok=True)
    cookie.write_text(secrets.token_hex(16))
    cookie.chmod(0o400)
    return _environment(
        HOME=str(folder),
        ERL_EPMD_PORT=str(epmd_port),
        ERL_EPMD_ADDRESS="127.0.0.1",
        RABBITMQ_NODENAME="devicehub@localhost",
        RABBITMQ_DIST_PORT=str(free_port()),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
        RABBITMQ_CONF_ENV_FILE=str(folder / "rabbitmq-env.conf"),
        RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq.conf"),
        RABBITMQ_ADVANCED_CONFIG_FILE=str(folder / "advanced.config"),
        RABBITMQ_GENERATED_CONFIG_DIR=str(folder / "generated"),
        RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "enabled_plugins"),
        RABBITMQ_MNESIA_BASE=str(folder / "mnesia"),
        RABBITMQ_PID_FILE=str(folder / "rabbitmq.pid"),
        RABBITMQ_LOG_BASE=str(folder),
        RABBITMQ_LOGS="-",
        RABBITMQ_ALLOW_INPUT="1",  # the script becomes the Erlang machine, so our signals reach it
    )


@contextmanager
def rabbitmq(folder: Path, *, auth_url: str, token: str, port: int | None = None) -> Iterator[int]:
    """Run RabbitMQ with MQTT only, which asks *auth_url* all questions; yield its MQTT port, *port* if given.

    The start takes 7 to 10 seconds, because the MQTT plugin waits a random 3 to 6 for other nodes: start one per
    test session. A second start in the same *folder* is the same node again, with its data.
    """
    # /usr/sbin/rabbitmq-server of Debian needs root or the user rabbitmq, and the folders of the system.
    if not RABBITMQ_SERVER.exists():
        raise MissingServer("rabbitmq-server", "rabbitmq-server")
    epmd = _program("epmd", package="rabbitmq-server")
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    port, epmd_port = port or free_port(), free_port()
    printed = BY_DIALECT["rabbitmq"].configuration(auth_url, token)
    env = _rabbitmq_environment(folder, printed, port, epmd_port)
    log = folder / "rabbitmq.log"

    def ready() -> bool:
        """Return whether the log reports the start; the MQTT port opens earlier."""
        return b"Server startup complete" in log.read_bytes() and accepts(port)

    # Erlang starts an epmd if there is none, and never stops it. So this one is started before.
    epmd_command = [epmd, "-address", "127.0.0.1", "-port", str(epmd_port)]
    with (
        process(epmd_command, env=env, log=folder / "epmd.log", ready=lambda: accepts(epmd_port)),
        process([str(RABBITMQ_SERVER), "-noinput"], env=env, log=log, ready=ready, timeout=90),
    ):
        yield port


@contextmanager
def mosquitto(folder: Path, more: str = "", *, port: int | None = None) -> Iterator[int]:
    """Run Mosquitto without authorization and persistence; yield its port, which is *port* if given.

    *more* is added to its configuration.
    """
    with mosquitto_broker(folder, more, port=port) as broker:
        yield broker.port


class MosquittoBroker(Restartable):
    """A Mosquitto on *port*."""

    def __init__(self, port: int, run: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]) -> None:
        super().__init__(run)
        self.port = port


@contextmanager
def mosquitto_broker(folder: Path, more: str = "", *, port: int | None = None) -> Iterator[MosquittoBroker]:
    """Run Mosquitto like mosquitto(); yield a broker that can be stopped and started again."""
    program = _program("mosquitto", package="mosquitto")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(MOSQUITTO_CONF.format(port=port) + more)
    command = [program, "-c", str(configuration)]
    log = folder / "mosquitto.log"
    broker = MosquittoBroker(
        port, lambda: process(command, env=_environment(), log=log, ready=lambda: accepts(port))
    )
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """Mount a file system in memory of this size at *folder*. Raise NotPermitted if that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0755", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, env=_environment(), check=False).returncode:
        raise NotPermitted("mount a tmpfs")
    try:
        yield
    finally:
        # Lazily: a process that still has a file open there keeps it until its end.
        subprocess.run(["umount", "--lazy", str(folder)], check=True, env=_environment())


@contextmanager
def strace(pid: int, options: Sequence[str], folder: Path) -> Iterator[Path]:
    """Trace process *pid* with all its threads until the block ends; yield the file of the trace.

    *options* may also make its system calls fail. Raise MissingServer if that is not allowed.
    """
    program = _program("strace", package="strace")
    trace, log = folder / f"{pid}.strace", folder / "strace.log"
    command = [program, "-f", "-o", str(trace), *options, "-p", str(pid)]
    with ExitStack() as stack:
        try:
            stack.enter_context(
                process(command, env=_environment(), log=log, ready=lambda: b" attached" in log.read_bytes())
            )
        except ServerFailed as failed:
            if "not permitted" in str(failed):
                raise NotPermitted("trace a process") from failed
            raise
        yield trace


def heeding_permissions() -> list[str]:
    """Return the beginning of a command that obeys the permissions of files, also if root starts it."""
    if os.geteuid() != 0:
        return []
    override = "-dac_override,-dac_read_search"
    setpriv = _program("setpriv", package="util-linux")
    return [setpriv, f"--bounding-set={override}", f"--inh-caps={override}"]


def faketime() -> str:
    """Return the path of the library that gives a process a wrong time."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise MissingServer("faketime", "faketime")
    return str(found[0])


def chromium() -> str:
    """Return the path of Debian's chromium, for playwright's `executable_path`."""
    return _program("chromium", package="chromium")


def postgres() -> str:
    """Return the path of the newest PostgreSQL server."""
    return _postgresql_program("postgres")


def wrk() -> str:
    """Return the path of the load generator wrk."""
    return _program("wrk", package="wrk")


def _environment(**variables: str) -> dict[str, str]:
    """Return a small environment, in which no RABBITMQ_* or PG* variables of the user reach a test server."""
    return {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", **variables}


def _program(name: str, *, package: str) -> str:
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        raise MissingServer(name, package)
    return path


def _postgresql_program(name: str) -> str:
    """Return the path of program *name* of the newest PostgreSQL; Debian has a folder per version, not in PATH."""
    folders = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    for folder in sorted(folders, key=lambda folder: float(folder.parent.name), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    return _program(name, package="postgresql")


def _user_instead_of_root() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise MissingServer("the user postgres", "postgresql") from None


def _ends_with_us(command: list[str], stop_signal: int) -> list[str]:
    setpriv = shutil.which("setpriv", path=SEARCH_PATH)
    if setpriv is None:
        return command
    return [setpriv, "--pdeathsig", signal.Signals(stop_signal).name.removeprefix("SIG"), *command]


def _wait_until_ready(
    server: subprocess.Popen[bytes], name: str, log: Path, ready: Callable[[], bool], timeout: float
) -> None:
    deadline = time.monotonic() + timeout
    has_ended = False
    while not has_ended:
        has_ended = server.poll() is not None  # before ready(): the server may be ready and then end
        with suppress(OSError):
            if ready():
                return
        if time.monotonic() > deadline:
            raise ServerFailed(f"{name} was not ready after {timeout:g} s\n{_last_lines(log)}")
        time.sleep(PROBE_SECONDS)
    raise ServerFailed(f"{name} ended with {server.returncode}\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _stop(server: subprocess.Popen[bytes], stop_signal: int) -> None:
    if server.poll() is None:
        server.send_signal(stop_signal)
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):  # the rest of its process group, also after a clean end
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
