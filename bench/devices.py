"""`python -m bench.devices` creates the tables of the database in its environment and fills them with devices.

Some of them get passwords, which it prints as JSON; the others get a hash of the same form that no password has.
All else is written as by provision_devices, with indexes and triggers.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import bcrypt
import django
from django.apps import apps
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from authsvc.core import passwords
from bench import filling, terminal
from devicehub.kinds import identifiers, topics
from devicehub.kinds.registry import Kind, registry

DEVICE_ID = "STATION-{:07d}"  # of equal length, so that all questions have one length
IMPORTED_ID = "IMPORT-{:07d}"
BATCH = 10_000
SSHA256_BYTES = 40  # the digest and a salt of 8
BCRYPT_COST = 10
SQLITE_PRAGMAS = ("synchronous = OFF", "cache_size = -1000000")  # only during the filling
POSTGRESQL_SETTINGS = ("synchronous_commit = off", "maintenance_work_mem = '512MB'")


def fill(
    count: int, with_passwords: int, imported: Sequence[tuple[str, str]], advance: Callable[[int], Any]
) -> dict[str, Any]:
    """Create *count* devices, and one for each of *imported* (password and hash). Return a report for the bench.

    *with_passwords* of the devices, drawn at random, have passwords.
    """
    kind = registry.get("weatherstation")
    assert kind is not None
    drawn = random.sample(range(1, count + 1), min(with_passwords, count))
    given = {number: passwords.generate() for number in drawn}
    rows = ((DEVICE_ID.format(number), _hashed(given.get(number))) for number in range(1, count + 1))
    imports = [(IMPORTED_ID.format(number), *pair) for number, pair in enumerate(imported, 1)]
    hashes = chain(rows, ((device_id, hashed) for device_id, _, hashed in imports))
    fields = kind.device_model._meta.concrete_fields[1:]  # the first is the key, which the database gives
    columns = ", ".join(f'"{field.column}"' for field in fields)
    table = kind.device_model._meta.db_table
    _WRITERS[connection.vendor](table, columns, len(fields), _rows(kind.device_model, hashes), advance)
    generated = [_describe(kind, DEVICE_ID.format(n), password) for n, password in given.items()]
    asyncio.run(_add_tokens(generated))
    return {
        "database": _version(),
        "token": _token(),
        "generated": generated,
        "imported": [_describe(kind, device_id, password) for device_id, password, _ in imports],
    }


def _rows(model: Any, hashes: Iterable[tuple[str, str]]) -> Iterator[list[Any]]:
    """Yield the rows of devices with these ids and password hashes, without the first column."""
    fields = model._meta.concrete_fields[1:]
    blank = model(credentials_changed_at=timezone.now())
    row = [
        None if field.name == "device_id" else field.get_db_prep_save(field.pre_save(blank, True), connection)
        for field in fields
    ]
    names = [field.name for field in fields]
    places = [names.index(name) for name in ("device_id", "mqtt_username", "mqtt_password_hash", "api_key")]
    for device_id, hashed in hashes:
        values = (device_id, _username(model, device_id), hashed, random.randbytes(32).hex())
        for place, value in zip(places, values, strict=True):
            row[place] = value
        yield row.copy()


def _describe(kind: Kind, device_id: str, password: str) -> dict[str, str]:
    return {
        "device_id": device_id,
        "username": _username(kind.device_model, device_id),
        "password": password,
        "topic": topics.build(kind, device_id, topics.MessageType.DATA),
    }


async def _add_tokens(devices: list[dict[str, str]]) -> None:
    """Add a token to each device that is valid for a day."""
    issue, close = import_string("authsvc.tokens.issue"), import_string("authsvc.freshness.reader.close")
    for device in devices:
        device["jwt"] = await issue(device["username"], 24 * 3600)
    await close()


def _username(model: Any, device_id: str) -> str:
    return identifiers.mqtt_username(model._meta.app_label, model._meta.model_name, device_id)


def _hashed(password: str | None) -> str:
    """Return the hash of *password*, or a random one that no password has."""
    if password is not None:
        return passwords.hash_generated(password)
    return "{SSHA256}" + base64.b64encode(random.randbytes(SSHA256_BYTES)).decode()


def _token() -> str:
    """Create a broker and return its token."""
    broker: Any = apps.get_model("authsvc", "Broker")(name="bench")
    token: str = broker.issue_token()
    broker.save()
    return token


def bcrypted(count: int, advance: Callable[[int], Any]) -> list[tuple[str, str]]:
    """Return *count* pairs of password and bcrypt hash; each takes a twentieth of a second of one core."""
    made = []
    with multiprocessing.get_context("spawn").Pool() as pool:
        for pair in pool.imap_unordered(_bcrypted, [BCRYPT_COST] * count, chunksize=8):
            made.append(pair)
            advance(1)
    return made


def _bcrypted(cost: int) -> tuple[str, str]:
    password = passwords.generate()
    return password, bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def _to_sqlite(
    table: str, columns: str, width: int, rows: Iterable[list[Any]], advance: Callable[[int], Any]
) -> None:
    statement = f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * width)})"
    remaining = iter(rows)
    with connection.cursor() as cursor:
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        with transaction.atomic():
            while batch := list(islice(remaining, BATCH)):
                cursor.executemany(statement, batch)
                advance(len(batch))
        cursor.execute("ANALYZE")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _to_postgresql(
    table: str, columns: str, width: int, rows: Iterable[list[Any]], advance: Callable[[int], Any]
) -> None:
    with connection.cursor() as cursor:
        for setting in POSTGRESQL_SETTINGS:
            cursor.execute(f"SET {setting}")
        with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for number, row in enumerate(rows, 1):
                copy.write_row(row)
                if number % BATCH == 0:
                    advance(BATCH)
        cursor.execute(f"VACUUM ANALYZE {table}")


_WRITERS = {"sqlite": _to_sqlite, "postgresql": _to_postgresql}


def _version() -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT sqlite_version()")
            return f"SQLite {cursor.fetchone()[0]}"
        cursor.execute("SHOW server_version")
        return f"PostgreSQL {cursor.fetchone()[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.devices", description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--with-passwords", type=int, required=True)
    parser.add_argument("--imported", type=Path, help="a JSON file of pairs of password and hash")
    parser.add_argument(
        "--stored", type=int, default=0, help="readings, and as many messages, to store (default: none)"
    )
    arguments = parser.parse_args()
    imported = json.loads(arguments.imported.read_text()) if arguments.imported else []
    django.setup()
    began = time.monotonic()
    call_command("migrate", verbosity=0)
    total = arguments.count + len(imported)
    with terminal.progress() as progress:
        task = progress.add_task(f"{total:,} devices, {connection.vendor}", total=total)
        made = fill(
            arguments.count, arguments.with_passwords, imported, lambda done: progress.advance(task, done)
        )
        if arguments.stored:
            task = progress.add_task(f"{arguments.stored:,} readings and messages", total=filling.STEPS)
            filling.fill(arguments.stored, arguments.count, lambda done: progress.advance(task, done))
    made["seconds"] = round(time.monotonic() - began, 1)
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
