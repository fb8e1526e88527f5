"""Databases for fault injection: each test gets one of its own, migrated and with a few devices.

They are read by raw drivers over separate connections, so that no code of the product takes part in the check.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import sql

from rig import servers
from rig.sender import number_in
from rig.serving import hub

DEVICES = 5
SMALL_DISK = 32  # MiB; a new PostgreSQL database takes 12 of them
BLOCK = 4096
VACUUM_ENDS = 30  # seconds; autovacuum takes much less for tables of some thousand rows
MESSAGES, READINGS, DEVICE, QUARANTINE = (
    "fleet_weatherstationmessage",
    "fleet_weatherstationreading",
    "fleet_weatherstationdevice",
    "devicehub_quarantine",
)
# The errors of a database that is away or busy.
Unavailable = (sqlite3.OperationalError, psycopg.OperationalError)


class Stored(NamedTuple):
    """The contents of a database.

    *readings* are (number, timestamp) of each reading, *quarantined* the number of each message in the quarantine,
    and *messages* is the number of rows of messages that did not fail.
    """

    readings: list[tuple[int, datetime]]
    quarantined: list[int | None]
    messages: int


class Disk:
    """A small file system that can be filled up."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Write until no byte more can be written."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for block in (1 << 20, BLOCK):
                try:
                    while ballast.write(bytes(block)) == block:
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Free the space that fill() took."""
        self._ballast.unlink()


class Database:
    """One database. *port* is that of its server, if it has one; faults are injected into *cluster* and *disk*."""

    port: int | None = None
    cluster: servers.Cluster | None = None

    def __init__(self, disk: Disk | None) -> None:
        self.disk = disk

    def url(self, port: int | None) -> str:
        """Return a DATABASE_URL that goes through *port*."""
        raise NotImplementedError

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of *statement*."""
        raise NotImplementedError

    def locked(self) -> AbstractContextManager[None]:
        """Hold a lock that keeps all other connections from storing a message."""
        raise NotImplementedError

    def has(self, table: str, column: str) -> bool:
        """Return whether *table* has *column*."""
        try:
            self.query(f"SELECT {column} FROM {table}")
        except (sqlite3.OperationalError, psycopg.errors.UndefinedColumn):
            return False
        return True

    def refusing(self, table: str) -> AbstractContextManager[None]:
        """Make the database refuse every new row in *table*."""
        raise NotImplementedError

    def newest(self) -> int:
        """Return the highest number among the readings, or -1 if there are none."""
        number = self.query(f"SELECT max(rainfall) FROM {READINGS}")[0][0]
        return -1 if number is None else int(number)

    def rows(self) -> int:
        """Return the number of readings and messages in quarantine."""
        statement = f"SELECT (SELECT count(*) FROM {READINGS}) + (SELECT count(*) FROM {QUARANTINE})"
        return int(self.query(statement)[0][0])

    def last_seen(self) -> dict[str, str]:
        """Return the time of each device id as text that sorts."""
        rows = self.query(f"SELECT device_id, last_seen FROM {DEVICE} WHERE last_seen IS NOT NULL")
        return {device_id: str(seen) for device_id, seen in rows}

    def stored(self) -> Stored:
        """Return the contents of the database."""
        readings = self.query(f"SELECT rainfall, timestamp FROM {READINGS}")
        quarantined = self.query(f"SELECT payload FROM {QUARANTINE}")
        [[messages]] = self.query(f"SELECT count(*) FROM {MESSAGES} WHERE outcome <> 'failed'")
        return Stored(
            [(int(number), _as_datetime(timestamp)) for number, timestamp in readings],
            [number_in(bytes(payload)) for (payload,) in quarantined],
            messages,
        )


def _as_datetime(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value).replace(tzinfo=UTC)


class SqliteDatabase(Database):
    def __init__(self, path: Path, disk: Disk | None) -> None:
        super().__init__(disk)
        self._path = path

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Make the files and their folder read-only."""
        files = [file for file in self._path.parent.iterdir() if file.is_file()]
        for file in files:
            file.chmod(0o400)
        self._path.parent.chmod(0o500)
        yield
        self._path.parent.chmod(0o700)
        for file in files:
            file.chmod(0o600)

    def url(self, port: int | None) -> str:
        return f"sqlite:///{self._path}"

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    @contextmanager
    def locked(self) -> Iterator[None]:
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=20)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")

    @contextmanager
    def refusing(self, table: str) -> Iterator[None]:
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=20)) as connection:
            connection.execute(
                f"CREATE TRIGGER refusing BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
            yield
            connection.execute("DROP TRIGGER refusing")


class PostgresqlDatabase(Database):
    def __init__(self, cluster: servers.Cluster, name: str, disk: Disk | None) -> None:
        super().__init__(disk)
        self.cluster = cluster
        self.name = name
        self._url = f"{cluster.url.rpartition('/')[0]}/{name}"
        self.port = int(self._url.rpartition(":")[2].partition("/")[0])

    def url(self, port: int | None) -> str:
        return self._url.replace(f":{self.port}/", f":{port}/")

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    @contextmanager
    def locked(self) -> Iterator[None]:
        with psycopg.connect(self._url) as connection:
            connection.execute(f"LOCK TABLE {MESSAGES} IN ACCESS EXCLUSIVE MODE".encode())
            yield
            connection.rollback()

    @contextmanager
    def refusing(self, table: str) -> Iterator[None]:
        self._execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'"
        )
        self._execute(f"CREATE TRIGGER refusing BEFORE INSERT ON {table} EXECUTE FUNCTION refuse()")
        yield
        self._execute("DROP FUNCTION refuse CASCADE")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def end_sessions(self) -> int:
        """End all other sessions of clients, and return their number; only a superuser may end autovacuum's."""
        return len(
            self.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend'"
            )
        )


class Databases(Protocol):
    """Creates databases of one vendor. *topics* are those of the devices in each of them."""

    vendor: str
    version: str
    topics: list[str]

    def new(self, *, small: bool = False) -> AbstractContextManager[Database]:
        """Create a database, on a small disk if *small*. Raise servers.MissingServer."""


class SqliteDatabases:
    vendor = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.sqlite3"
        folder.mkdir(parents=True, exist_ok=True)
        made = hub(self.vendor, f"sqlite:///{self._template}", count=DEVICES, with_passwords=DEVICES)
        self.version, self.topics = made.version, [device.topic for device in made.generated]

    @contextmanager
    def new(self, *, small: bool = False) -> Iterator[Database]:
        with tempfile.TemporaryDirectory(dir=self._folder) as name, ExitStack() as stack:
            folder = Path(name)
            if small:
                stack.enter_context(servers.small_disk(folder, SMALL_DISK))
            path = folder / "devicehub.sqlite3"
            shutil.copyfile(self._template, path)
            yield SqliteDatabase(path, Disk(folder) if small else None)


class PostgresqlDatabases:
    vendor = "postgresql"

    def __init__(self, cluster: servers.Cluster, disk: Path | None) -> None:
        self._cluster, self._disk = cluster, disk
        self._numbers = 0
        url = f"{cluster.url.rpartition('/')[0]}/template"
        self._run(sql.SQL("CREATE DATABASE template"))
        made = hub(self.vendor, url, count=DEVICES, with_passwords=DEVICES)
        self.version, self.topics = made.version, [device.topic for device in made.generated]

    @contextmanager
    def new(self, *, small: bool = False) -> Iterator[Database]:
        if small and self._disk is None:
            raise servers.NotPermitted("mount a tmpfs")
        self._numbers += 1
        name = f"faults_{self._numbers}"
        where = "TABLESPACE small" if small else ""
        self._run(sql.SQL(f"CREATE DATABASE {name} TEMPLATE template {where}"))
        try:
            disk = Disk(self._disk) if small and self._disk is not None else None
            yield PostgresqlDatabase(self._cluster, name, disk)
        finally:
            self._drop(sql.SQL(f"DROP DATABASE {name} WITH (FORCE)"))

    def _drop(self, statement: sql.SQL) -> None:
        """Drop a database once autovacuum has left it, whose process only a superuser may end."""
        end = time.monotonic() + VACUUM_ENDS
        while True:
            try:
                return self._run(statement)
            except psycopg.errors.InsufficientPrivilege:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def _run(self, statement: sql.SQL) -> None:
        with psycopg.connect(self._cluster.url, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def sqlite(folder: Path) -> Iterator[Databases]:
    """Yield databases on SQLite, with their files in *folder*."""
    yield SqliteDatabases(folder)


@contextmanager
def postgresql(folder: Path) -> Iterator[Databases]:
    """Yield databases of one PostgreSQL cluster, with a tablespace on a small disk if one can be mounted."""
    with ExitStack() as stack:
        # Not below *folder*: the user postgres cannot enter the folders of root.
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devicehub-disk-", dir="/tmp")))
        disk.chmod(0o755)
        try:
            stack.enter_context(servers.small_disk(disk, SMALL_DISK))
        except servers.NotPermitted:
            yield PostgresqlDatabases(stack.enter_context(servers.postgresql_cluster(folder)), None)
            return
        space = disk / "tablespace"
        space.mkdir()
        cluster = stack.enter_context(servers.postgresql_cluster(folder, space))
        yield PostgresqlDatabases(cluster, disk)


STORES: dict[str, Callable[[Path], AbstractContextManager[Databases]]] = {
    "sqlite": sqlite,
    "postgresql": postgresql,
}
