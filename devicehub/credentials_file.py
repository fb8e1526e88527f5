"""Credentials from elsewhere: a password file or a CSV becomes devices that log in as they always did."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from django.db import transaction
from django.utils import timezone

from authsvc.core import access, passwords
from devicehub import provisioning
from devicehub.identifiers import is_device_id
from devicehub.registry import Kind

COLUMNS = ("username", "hash", "device_id", "client_id")


class Verdict(StrEnum):
    """What becomes of one row."""

    NEW = "new"  # a device is made for it
    CHANGED = "changed"  # a device that exists gets its username and hash
    SAME = "same"  # nothing to do
    REFUSED = "refused"


@dataclass
class Row:
    """One line of the file. *problem* says why it is refused."""

    line: int
    username: str
    hash: str
    device_id: str = ""
    client_id: str = ""
    verdict: Verdict = Verdict.REFUSED
    problem: str = ""
    scheme: str = ""


class UnreadableFile(Exception):
    """Neither a password file nor a CSV with the columns username and hash."""


def read(text: str) -> list[Row]:
    """The rows of *text*: CSV when its first line names the columns, else `username:hash` lines."""
    lines = text.removeprefix("\ufeff").splitlines()
    first = next((line for line in lines if line.strip()), "")
    names = [name.strip() for name in first.lower().split(",")]
    if "username" in names and "hash" in names:
        return list(_csv(text.removeprefix("\ufeff")))
    rows = [row for number, line in enumerate(lines, 1) if (row := _password_line(number, line))]
    if not rows:
        raise UnreadableFile("The file holds no username:hash line and no CSV with username and hash")
    return rows


def judge(rows: list[Row], kind: Kind, *, utf8_salt: bool = False, replace: bool = False) -> None:
    """Set the verdict of each row; nothing is written. *utf8_salt*: go-auth's salts are text, not base64.

    Unless *replace*, a device that has credentials already is refused: a second run of an old file would undo
    every rotation and revocation since.
    """
    seen: set[str] = set()
    for row in rows:
        row.device_id = row.device_id or row.username
        row.verdict, row.problem = Verdict.REFUSED, ""
        try:
            _check(row, utf8_salt)
            _refuse_second(row, seen)
            row.verdict = _against_database(row, kind, replace)
        except Refused as refused:
            row.problem = str(refused)


@transaction.atomic
def write(rows: list[Row], kind: Kind) -> int:
    """Write what judge() found new or changed; how many rows that were."""
    written = 0
    for row in rows:
        if row.verdict not in (Verdict.NEW, Verdict.CHANGED):
            continue
        device = kind.device_model.objects.filter(device_id=row.device_id).first()
        device = device or kind.device_model(device_id=row.device_id)
        device.mqtt_username, device.mqtt_password_hash = row.username, row.hash
        device.mqtt_client_id = row.client_id or device.mqtt_client_id
        device.previous_password_hash = ""
        device.previous_valid_until = device.password_expires_at = None
        device.credentials_changed_at = timezone.now()
        device.save()
        if row.verdict is Verdict.NEW:
            transaction.on_commit(partial(provisioning.announce, kind, device))
        written += 1
    return written


class Refused(Exception):
    """Why a row is not taken."""


def _csv(text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
    unknown = [name for name in reader.fieldnames if name not in COLUMNS]
    if unknown:
        raise UnreadableFile(f"Unknown column {unknown[0]!r}; known are {', '.join(COLUMNS)}")
    for record in reader:
        username, stored, device_id, client_id = ((record.get(name) or "").strip() for name in COLUMNS)
        if None in record:  # more fields than columns: a comma in the hash that was not quoted
            stored = ""
        yield Row(reader.line_num, username, stored, device_id, client_id)


def _password_line(number: int, line: str) -> Row | None:
    """`username:hash`, as mosquitto_passwd and go-auth's files write it; comments and empty lines are none."""
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    username, _, stored = line.partition(":")
    return Row(number, username, stored)


def _check(row: Row, utf8_salt: bool) -> None:
    if not access.is_username(row.username):
        raise Refused("the username is not 1-128 of letters, digits and _ . @ : = -")
    if not row.hash:
        raise Refused("there is no hash, or it holds a comma and is not in quotes")
    if not is_device_id(row.device_id):
        raise Refused("the device id is not 1-128 of letters, digits and _ : -; give a column device_id")
    if utf8_salt and row.hash.startswith("PBKDF2$") and row.hash.count("$") == 4:
        row.hash = passwords.with_utf8_salt(row.hash)
    if len(row.hash) > 256:
        raise Refused("the hash has more than 256 characters")
    try:
        row.scheme = passwords.scheme_of(row.hash).name
    except passwords.UnusableHash as error:
        raise Refused(str(error)) from error


def _refuse_second(row: Row, seen: set[str]) -> None:
    names = {n for n in (row.username, row.device_id, row.client_id) if n}
    if twice := sorted(names & seen):
        raise Refused(f"{twice[0]} stands in the file twice")
    seen |= names


def _against_database(row: Row, kind: Kind, replace: bool) -> Verdict:
    device = kind.device_model.objects.filter(device_id=row.device_id).first()
    names = [n for n in (row.username, row.device_id, row.client_id) if n]
    try:
        provisioning.refuse_taken(names, but=device)
    except provisioning.IdentityTaken as error:
        raise Refused(str(error)) from error
    if device is None:
        return Verdict.NEW
    same = (device.mqtt_username, device.mqtt_password_hash) == (row.username, row.hash)
    if same and row.client_id in ("", device.mqtt_client_id):
        return Verdict.SAME
    if not replace and (device.mqtt_password_hash or device.credentials_changed_at):
        raise Refused("its credentials changed here since; --replace overwrites them")
    return Verdict.CHANGED
