"""Erasure of a device: all rows about it are deleted, history included, also those that a deleted device left.

The entries of the audit stay: they say who changed the device and who erased it.

The device is disabled first, so nothing new is stored. After a call that was killed, call it again to finish; the
worker completes the removal of the device itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from django.apps import apps
from django.db import models, transaction
from django.db.models import functions

from authsvc import audit
from authsvc.models import AuditEntry, Denial, LastLogin
from devicehub.db import batches
from devicehub.db.batches import Pace
from devicehub.db.portions import batched
from devicehub.db.statements import quoted
from devicehub.errors import DevicehubError
from devicehub.kinds import identifiers, topics
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType
from devicehub.models import (
    BaseDevice,
    CountedRefusal,
    DeviceCommand,
    DeviceOptions,
    DeviceTag,
    GroupMember,
    QuarantinedMessage,
    QuarantineUse,
    RemovalRequest,
    RepeatableRequest,
    Rollup,
    RotationMember,
)
from devicehub.removal import deletion, inheritance, requests, retained


class NothingThere(DevicehubError):
    """There is no such device, and no data of it is left."""


NOT_ROWS = ("retained", "audit_kept")  # Numbers of Erased that count no row to be deleted.


@dataclass
class Erased:
    """The numbers of rows of a device that were or would be erased; *others* are those of other tables of apps."""

    device: int = 0
    readings: int = 0
    messages: int = 0
    rollups: int = 0
    quarantine: int = 0
    commands: int = 0
    api_answers: int = 0  # Kept answers of the REST API.
    rotations: int = 0  # Its places in rotations of a fleet.
    grants: int = 0
    memberships: int = 0  # In groups.
    tags: int = 0
    options: int = 0
    denials: int = 0
    logins: int = 0  # The row of its last login.
    admin_log: int = 0  # Entries of the admin's log about the device.
    retained: int = 0  # Topics whose retained messages the broker is to clear.
    audit_kept: int = 0  # Entries of the audit about the device, which stay.
    others: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return the numbers by name."""
        found = asdict(self)
        others: dict[str, int] = found.pop("others")
        return {**found, **others}

    def add(self, name: str, count: int) -> None:
        """Count *count* more rows as *name*."""
        if name in _OWN:
            setattr(self, name, getattr(self, name) + count)
        else:
            self.others[name] = self.others.get(name, 0) + count

    @property
    def is_empty(self) -> bool:
        return not any(count for name, count in self.counts().items() if name not in NOT_ROWS)


_OWN = frozenset(Erased.__dataclass_fields__) - {"others"}


class Table(NamedTuple):
    """A table whose *column* holds the keys of devices or, with *kind*, the ids of devices of that kind."""

    name: str
    model: type[models.Model]
    column: str
    kind: str | None

    def value(self, kind: Kind, device_id: str) -> str | None:
        """Return the value of *column* for a device; None if the table holds no devices of its kind."""
        if self.kind is None:
            return kind.key(device_id)
        return device_id if kind.slug == self.kind else None

    def count(self, value: str) -> int:
        return self.model._default_manager.filter(**{self.column: value}).count()

    def drain(self, value: str, pace: Pace) -> int:
        """Delete the rows of *value* in small portions; return how many."""
        meta: Any = self.model._meta
        condition = f"{quoted(meta.get_field(self.column).column)} = %s"
        return batches.drain(meta.db_table, condition, [value], pace, key=meta.pk.column)


_tables: list[Table] = []


def register(name: str, model: type[models.Model], column: str, *, kind: str | None = None) -> None:
    """Register *model*: its rows are erased with the device whose key is in *column*, and counted as *name*.

    With *kind*, the slug of a kind, *column* holds device ids of that kind. *column* should have an index.
    A model with a foreign key to a device need not be registered: Django deletes such rows with the device.
    """
    if name in ("device", "others", *NOT_ROWS):
        raise ValueError(f"{name!r} is not a name for rows of a table")
    table = Table(name, model, column, kind)
    if table not in _tables:
        _tables.append(table)


def unregister(model: type[models.Model]) -> None:
    """Remove *model* from the list; for tests."""
    _tables[:] = [table for table in _tables if table.model is not model]


register("rollups", Rollup, "device_key")
register("quarantine", QuarantinedMessage, "device_key")
register("quarantine", CountedRefusal, "device_key")
register("commands", DeviceCommand, "device_key")
register("denials", Denial, "principal")
register("memberships", GroupMember, "device_key")
register("tags", DeviceTag, "device_key")
register("options", DeviceOptions, "device_key")
register("logins", LastLogin, "key")
register("rotations", RotationMember, "device_key")
register("api_answers", RepeatableRequest, "device_key")  # Kept answers, such as one with a command.


def erase(kind: Kind, device_id: str, pace: Pace) -> Erased:
    """Erase a device with all its history, also the rows that an earlier deleted device left; return the numbers.

    Raise NothingThere, or ProtectedError or RestrictedError if a row of a project prevents the deletion; then nothing
    has changed. Raise batches.Stopped or the error of a receiver of pre_delete; then the device is disabled, and the
    next call erases the rest.
    """
    found = preview(kind, device_id)
    if found.is_empty:
        raise NothingThere(f"There is no {kind.key(device_id)}, and no data of it is left")
    device = kind.device_model.objects.filter(device_id=device_id).first()
    done = Erased()
    with transaction.atomic():
        if device is not None:
            requests.request(device)
        # Also if the device was disabled long ago: a retained command may be newer.
        done.retained = retained.enqueue(kind, [device_id])
    # These rows are deleted before the device: afterwards, rows of its key may belong to another device.
    for table, value in _tables_of(kind, device_id):
        if device is None or table.model is not Rollup:  # Rollups are deleted with the readings.
            done.add(table.name, table.drain(value, pace))
    for name, rows in _unnamed(kind, device_id, device):
        done.add(name, _drain_found(rows, pace))
    if device is None:
        with transaction.atomic():
            done.grants = inheritance.delete_grants([kind.key(device_id)])
    else:
        _remove(kind, device, pace, done)
        for table, value in _tables_of(kind, device_id):
            if table.name == "quarantine":  # A message in flight may have been quarantined meanwhile.
                done.add(table.name, table.drain(value, pace))
    with transaction.atomic():
        RemovalRequest.objects.filter(device_key=kind.key(device_id)).delete()
        erased = {name: count for name, count in _together(found, done).counts().items() if count}
        audit.record("device_erased", kind.key(device_id), before=erased)
    done.audit_kept = _audit_of(kind, device_id)
    QuarantineUse.objects.filter(owner=kind.key(device_id)).delete()
    QuarantineUse.invalidate("")  # Messages on unknown topics count for no device.
    return _together(found, done)


def _remove(kind: Kind, device: BaseDevice, pace: Pace, done: Erased) -> None:
    labels = [(name, rows.model._meta.label) for name, rows in deletion.tables_of(kind, device)]
    drained = deletion.drain_rows(kind, device, pace)
    by_model = deletion.delete_row(kind, device)
    done.device = by_model.get(kind.device_model._meta.label, 0)
    for name, count in drained.items():
        done.add(name, count)
    for name, label in labels:
        done.add(name, by_model.get(label, 0))


def _together(found: Erased, done: Erased) -> Erased:
    """Return the larger number of *found* and *done* for each name.

    More rows may have been stored meanwhile, and a worker may have deleted a part of them.
    """
    total = Erased(retained=done.retained, audit_kept=done.audit_kept)
    counted = done.counts()
    for name, count in found.counts().items():
        if name not in NOT_ROWS:
            total.add(name, max(count, counted.get(name, 0)))
    return total


def preview(kind: Kind, device_id: str) -> Erased:
    """Count the rows that erase() would delete; change nothing."""
    found = Erased(
        retained=len(MessageType),
        audit_kept=_audit_of(kind, device_id),
        grants=inheritance.grants_of([kind.key(device_id)]).count(),
    )
    for table, value in _tables_of(kind, device_id):
        found.add(table.name, table.count(value))
    device = kind.device_model.objects.filter(device_id=device_id).first()
    if device is not None:
        found.device = 1
        for name, rows in deletion.tables_of(kind, device):
            found.add(name, rows.count())
    for name, rows in _unnamed(kind, device_id, device):
        found.add(name, rows.count())
    return found


def _audit_of(kind: Kind, device_id: str) -> int:
    return AuditEntry.objects.filter(object_key=kind.key(device_id)).count()


def _tables_of(kind: Kind, device_id: str) -> list[tuple[Table, str]]:
    """Return the registered tables that may hold the device, each with the value of its column for it."""
    values = ((table, table.value(kind, device_id)) for table in _tables)
    return [(table, value) for table, value in values if value is not None]


def _unnamed(kind: Kind, device_id: str, device: BaseDevice | None) -> list[tuple[str, models.QuerySet[Any]]]:
    """Return the rows about a device that do not hold its key, each with the name under which they count."""
    meta, key = kind.device_model._meta, kind.key(device_id)
    usernames = {identifiers.mqtt_username(meta.app_label, str(meta.model_name), device_id)}
    client_ids = {device_id, *usernames}
    if device is not None:
        usernames.update(filter(None, [device.mqtt_username]))
        client_ids.update(filter(None, [device.mqtt_username, device.mqtt_client_id]))
    # A client id counts where no username says that another client used it.
    own = models.Q(username__in=usernames) | models.Q(username="", principal="", client_id__in=client_ids)
    found: list[tuple[str, models.QuerySet[Any]]] = [
        ("denials", Denial.objects.filter(own).exclude(principal=key)),
    ]
    before = topics.prefix(kind, device_id)
    if before:
        # LIKE would ignore case on SQLite. The slash covers a topic that ends with the device id.
        head = functions.Substr(functions.Concat("topic", models.Value("/")), 1, len(before))
        strange = QuarantinedMessage.objects.filter(reason="unknown_topic").exclude(device_key=key)
        found.append(("quarantine", strange.annotate(head=head).filter(head=before)))
    if apps.is_installed("django.contrib.admin"):
        found.append(("admin_log", _lines_of_the_admin(kind, device_id, device, usernames)))
    return found


def _lines_of_the_admin(
    kind: Kind, device_id: str, device: BaseDevice | None, usernames: Iterable[str]
) -> models.QuerySet[Any]:
    """Return the entries of the admin's log about the device, its grants, commands, messages and denials.

    An entry holds the primary key of its row, which may be deleted, and the text of the row, which names the device.
    """
    meta, entries = kind.device_model._meta, apps.get_model("admin", "LogEntry")._default_manager
    names = [name for name in (kind.key(device_id), topics.prefix(kind, device_id)[:-1]) if name]
    denials = models.Q(content_type__app_label="authsvc", content_type__model="denial")
    # LIKE finds too many entries, and ignores case on SQLite, so the text is compared here.
    lines = entries.filter(object_repr__contains=device_id).exclude(denials)
    wanted = [pk for pk, text in lines.values_list("pk", "object_repr") if _names_one_of(names, text)]
    # A denial of another device may hold a topic of this one; its entry stays.
    beginnings = tuple(f"{username} " for username in usernames)
    lines = entries.filter(denials)
    wanted += [pk for pk, text in lines.values_list("pk", "object_repr") if text.startswith(beginnings)]
    own = models.Q(pk__in=wanted)
    if device is not None:
        own |= models.Q(
            object_id=str(device.pk),
            content_type__app_label=meta.app_label,
            content_type__model=meta.model_name,
        )
    return entries.filter(own)


def _names_one_of(names: list[str], text: str) -> bool:
    """Return whether a word of *text* contains one of *names* as whole levels of a topic or key.

    >>> _names_one_of(["things/a/1"], "unknown_topic on things/a/1/gps")
    True
    >>> _names_one_of(["things/a/1"], "unknown_topic on things/a/12/gps")
    False
    >>> _names_one_of(["a/1"], "Device a/1: allow publish on plant/x")  # The text of a grant.
    True
    """
    words = [f"/{word.removeprefix('key:')}/" for word in text.split()]
    if text.startswith("Device "):
        words.append(f"/{text.removeprefix('Device ').partition(': ')[0]}/")
    return any(f"/{name}/" in word for name in names for word in words)


def _drain_found(rows: models.QuerySet[Any], pace: Pace) -> int:
    """Delete *rows* in small portions, as batches.drain() does; return how many."""
    total = 0
    for pks in batched(list(rows.order_by().values_list("pk", flat=True)), min(pace.rows, 500)):
        marks = ", ".join(["%s"] * len(pks))
        table = quoted(rows.model._meta.db_table)
        total += pace.execute(f"DELETE FROM {table} WHERE id IN ({marks})", pks)
    return total
