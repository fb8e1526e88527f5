"""Import of credentials: a password file or a CSV becomes devices that log in as before."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from django.db import transaction

from authsvc import audit
from authsvc.core import access, passwords
from devicehub.errors import DevicehubError
from devicehub.kinds.identifiers import is_client_id, is_device_id
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice
from devicehub.provisioning.credentials import CREDENTIAL_FIELDS
from devicehub.provisioning.devices import announce
from devicehub.provisioning.names import IdentityTaken, refuse_taken

COLUMNS = ("username", "hash", "device_id", "client_id")
HEADINGS = frozenset({*COLUMNS, "name", "site", "type"})  # Names that show that a line is a heading.
SEPARATORS = (",", ";", "\t")
TOO_MANY = (
    "there are more fields than the first line names; put a hash that holds the separator into double quotes"
)
EXPECTED = (
    "Each line must be username:hash, or the first line must name the columns, "
    "among them username and hash, separated by commas, semicolons or tabs"
)


class RowOutcome(StrEnum):
    """The outcome of one row."""

    NEW = "new"  # A device is created for it.
    CHANGED = "changed"  # An existing device gets its username and hash.
    SAME = "same"  # The device has these credentials already.
    REFUSED = "refused"


@dataclass
class Row:
    """One line of the file. *problem* is the reason if it is refused.

    judge() empties every text that may be a misplaced secret, so that the rest may be shown.
    """

    line: int
    username: str
    hash: str = field(repr=False)
    device_id: str = ""
    client_id: str = ""
    outcome: RowOutcome = RowOutcome.REFUSED
    problem: str = ""
    scheme: str = ""


@dataclass
class CredentialsFile:
    """The rows of a file, and the names of its columns that are ignored."""

    rows: list[Row]
    ignored: list[str] = field(default_factory=list)


class UnreadableFile(DevicehubError):
    """The file is neither a password file nor a CSV with the columns username and hash."""


def read(text: str) -> CredentialsFile:
    """Return the rows of *text*: a CSV if its first line names columns, else `username:hash` lines.

    Raise UnreadableFile, whose text holds nothing of the file.
    """
    text = text.removeprefix("\ufeff")
    lines = [line.strip() for line in text.split("\n")]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    for separator in SEPARATORS:
        names = [name.strip().lower() for name in _fields(first, separator)]
        if "username" in names and "hash" in names:
            return _csv(text, separator, names)
    rows = [row for number, line in enumerate(lines, 1) if (row := _password_line(number, line))]
    is_csv = ":" not in first and any(len(_fields(first, separator)) > 1 for separator in SEPARATORS)
    if is_csv or all(row.problem for row in rows):
        raise UnreadableFile(_missing(first) or EXPECTED)
    return CredentialsFile(rows)


def judge(rows: list[Row], kind: Kind, *, utf8_salt: bool = False, replace: bool = False) -> None:
    """Set the outcome of each row; write nothing. With *utf8_salt* go-auth's salts are read as text, not base64.

    Without *replace*, a device that already has credentials is refused: a second run of an old file would undo every
    later rotation and revocation.
    """
    seen: set[str] = set()
    for row in rows:
        row.outcome = RowOutcome.REFUSED
        if row.problem:  # The line could not be read.
            continue
        row.device_id = row.device_id or row.username
        try:
            _check(row, utf8_salt)
            _refuse_second(row, seen)
            row.outcome = _against_database(row, kind, replace)
        except RowRefused as refused:
            row.problem = str(refused)


@transaction.atomic
def write(rows: list[Row], kind: Kind, *, replace: bool = False) -> int:
    """Write the rows that judge() found new or changed; return how many.

    One whose device was created, changed or deleted meanwhile is refused; with *replace* as in judge().
    """
    written = 0
    for row in rows:
        if row.outcome not in (RowOutcome.NEW, RowOutcome.CHANGED):
            continue
        found = kind.device_model._base_manager.select_for_update(no_key=True).filter(device_id=row.device_id)
        device = found.first()
        is_new = device is None
        if is_new != (row.outcome is RowOutcome.NEW):
            row.outcome, row.problem = RowOutcome.REFUSED, "the device was created or deleted meanwhile"
            continue
        try:
            _refuse_set(device, replace)
        except RowRefused as refused:
            row.outcome, row.problem = RowOutcome.REFUSED, str(refused)
            continue
        device = device or kind.device_model(device_id=row.device_id)
        device.mqtt_username = row.username
        device.mqtt_client_id = row.client_id or device.mqtt_client_id
        device.set_hash(row.hash)
        if is_new:
            device.save(force_insert=True)
            transaction.on_commit(partial(announce, kind, device))
        else:
            device.save(update_fields=("mqtt_client_id", *CREDENTIAL_FIELDS))
        audit.record(
            "credentials_imported",
            kind.key(device.device_id),
            after={"mqtt_username": row.username, "scheme": row.scheme, "new": is_new},
        )
        written += 1
    return written


class RowRefused(DevicehubError):
    """The row cannot be imported, for the reason in the text."""


def _missing(first: str) -> str:
    """Return which columns the heading *first* lacks; empty if it is not a heading. It repeats nothing of the file."""
    for separator in SEPARATORS:
        names = {name.strip().lower() for name in _fields(first, separator)}
        if names & HEADINGS:
            lacking = [name for name in ("username", "hash") if name not in names]
            columns = (
                f"columns {' and '.join(lacking)} are" if len(lacking) > 1 else f"column {lacking[0]} is"
            )
            return f"The {columns} missing; for devices with new credentials use provision_devices --from"
    return ""


def _fields(line: str, separator: str) -> list[str]:
    """Return the fields of one line of CSV; empty if the line is not valid."""
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True), [])
    except csv.Error:
        return []


def _csv(text: str, separator: str, names: list[str]) -> CredentialsFile:
    """Return the rows of a CSV with the columns *names*. Comments and empty lines may precede its header."""
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise UnreadableFile(f"The first line names the column {twice[0]} twice; keep one of them")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        rows = list(_records(reader, names))
    except csv.Error as error:
        raise UnreadableFile(
            f"Line {reader.line_num} is not CSV: a double quote is not closed or is followed by text, "
            "or a field is too long"
        ) from error
    return CredentialsFile(rows, [name for name in names if name and name not in COLUMNS])


def _records(reader: Any, names: list[str]) -> Iterator[Row]:
    header = True
    for record in reader:
        if not any(value.strip() for value in record) or (header and record[0].lstrip().startswith("#")):
            continue
        if header:
            header = False
            continue
        if any(value.strip() for value in record[len(names) :]):
            yield Row(
                reader.line_num,
                "",
                "",
                problem=TOO_MANY,
            )
            continue
        found = dict(zip(names, (value.strip() for value in record), strict=False))
        username, stored, device_id, client_id = (found.get(name, "") for name in COLUMNS)
        yield Row(reader.line_num, username, stored, device_id, client_id)


def _password_line(number: int, line: str) -> Row | None:
    """Return the row of `username:hash`, as mosquitto_passwd and go-auth write it; None for comments and empty lines.

    The last colon separates them: a username may hold colons, a hash never does.
    """
    if not line or line.startswith("#"):
        return None
    username, colon, stored = line.rpartition(":")
    return Row(
        number, username, stored, problem="" if colon else "there is no colon between username and hash"
    )


def _check(row: Row, utf8_salt: bool) -> None:
    """Raise RowRefused if a name or the hash of *row* cannot be used; then empty the texts that may be secrets."""
    username, device_id, client_id = row.username, row.device_id, row.client_id
    row.username = row.device_id = row.client_id = ""
    if not row.hash:
        raise RowRefused("there is no hash")
    if utf8_salt and row.hash.startswith("PBKDF2$") and row.hash.count("$") == 4:
        row.hash = passwords.with_utf8_salt(row.hash)
    if len(row.hash) > 256:
        raise RowRefused("the hash has more than 256 characters")
    try:
        row.scheme = passwords.scheme_of(row.hash).name
    except passwords.UnusableHash as error:
        raise RowRefused(str(error)) from error
    if not access.is_username(username):
        raise RowRefused("the username is not 1-128 characters of letters, digits and _ . @ : = -")
    row.username = username
    if not is_device_id(device_id):
        raise RowRefused(
            "the device id is not 1-128 characters of letters, digits and _ : -; give a column device_id"
        )
    row.device_id = device_id
    if client_id and not is_client_id(client_id):
        raise RowRefused("the client id is not 1-128 characters, or it holds +, # or a control character")
    row.client_id = client_id


def _refuse_second(row: Row, seen: set[str]) -> None:
    """Raise RowRefused if a name of *row* is in *seen* already; else add its names to *seen*."""
    names = {n for n in (row.username, row.device_id, row.client_id) if n}
    if twice := sorted(names & seen):
        raise RowRefused(f"{twice[0]} is in the file twice")
    seen |= names


def _against_database(row: Row, kind: Kind, replace: bool) -> RowOutcome:
    device = kind.device_model.objects.filter(device_id=row.device_id).first()
    names = [n for n in (row.username, row.device_id, row.client_id) if n]
    try:
        refuse_taken(names, but=device)
    except IdentityTaken as error:
        raise RowRefused(str(error)) from error
    if device is None:
        return RowOutcome.NEW
    same = (device.mqtt_username, device.mqtt_password_hash) == (row.username, row.hash)
    if same and row.client_id in ("", device.mqtt_client_id):
        return RowOutcome.SAME
    _refuse_set(device, replace)
    return RowOutcome.CHANGED


def _refuse_set(device: BaseDevice | None, replace: bool) -> None:
    """Raise RowRefused if *device* has or had credentials that must not be overwritten."""
    if device and not replace and (device.mqtt_password_hash or device.credentials_changed_at):
        raise RowRefused("the credentials of the device were set or changed here; --replace overwrites them")
