"""The definitions of objects in the database: those that are shipped, and those that are imported from files.

A definition replaces the one of its object and version. Each change raises the revision of the definitions, by which
processes know that they must read them again. Values that were stored before their object was known then get their
types (devicehub.lwm2m.retyping).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, connections, router, transaction

from authsvc.text import make_storable
from devicehub.db.portions import batched
from devicehub.lwm2m import catalogue, object_xml, retyping
from devicehub.lwm2m.models import Definitions, ObjectType, ResourceType
from devicehub.lwm2m.object_xml import InvalidObjectXml
from devicehub.messages.lwm2m.objects import SHIPPED, Key, ObjectDefinition, ResourceDefinition, shipped
from devicehub.messages.lwm2m.values import DataType

SHIPPED_ORIGIN = (
    "shipped: "  # An imported definition has the name of its file, and no update of devicehub replaces it.
)
ONLY = 1  # The key of the row of Definitions.
MOST_FILES = 10_000  # In folders.
MOST_FOLDERS = 10_000  # In folders, such as those of a whole disk by mistake.
PIECE = 1 << 16  # Bytes of a file that are read at once.
FILES_AT_ONCE = 100  # In one transaction.
ROWS_AT_ONCE = 500  # In one statement.
FIELDS = ("name", "description", "urn", "multiple", "mandatory", "origin")
RESOURCE_FIELDS = ResourceDefinition._fields[1:]


class Outcome(StrEnum):
    """The result for one object, or for a file that cannot be read."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Report(NamedTuple):
    """The result for one object of a file; without an object, that of a file that cannot be read."""

    file: str
    outcome: Outcome
    object_id: int | None = None
    version: str = ""
    name: str = ""
    reason: str = ""


class Found(NamedTuple):
    """The content of a file: its definitions, or the reason why it has none."""

    file: str
    definitions: Sequence[ObjectDefinition] = ()
    reason: str = ""


class Held(NamedTuple):
    """A definition that the database holds, the key of its row, and the keys of its resources by resource id."""

    key: int
    definition: ObjectDefinition
    resources: Mapping[int, int]


Seen = dict[Key, Found]  # The file of an import that defines an object in a version first.


def install(using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    """Write the shipped definitions, unless the database holds them already. It runs after each migrate.

    A definition that was imported stays.
    """
    if not router.allow_migrate_model(using, ObjectType):
        return
    if Definitions._meta.db_table not in connections[using].introspection.table_names():
        return  # Migrated back to before it existed.
    digest = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    if Definitions.objects.using(using).filter(shipped=digest).exists():
        return
    with transaction.atomic(using=using):
        _lock(using)
        held = _held(using)
        changed = [
            definition._replace(origin=SHIPPED_ORIGIN + definition.origin)
            for key, definition in shipped().items()
            if key not in held or held[key].definition.origin.startswith(SHIPPED_ORIGIN)
        ]
        changed = [definition for definition in changed if compare(definition, held) is not Outcome.UNCHANGED]
        _write(changed, held, using)
        Definitions.objects.using(using).filter(pk=ONLY).update(shipped=digest)
    if using == DEFAULT_DB_ALIAS:
        retyping.retype({definition.object_id for definition in changed})


def import_files(paths: Sequence[Path]) -> Iterator[Report]:
    """Import the object files at *paths* and in folders there, and yield the result for each object.

    A file that cannot be read does not stop the others. Each hundred files are one transaction. Raise
    InvalidObjectXml, before anything is written, if the folders hold too many files.
    """
    seen: Seen = {}
    for some in batched(list(dict.fromkeys(_files(paths))), FILES_AT_ONCE):
        yield from _import([_read(file) for file in some], seen)


def compare(definition: ObjectDefinition, held: Mapping[Key, Held]) -> Outcome:
    """Return the outcome of writing *definition* to a database that holds the definitions *held*."""
    if definition.key not in held:
        return Outcome.CREATED
    is_equal = _content(definition) == _content(held[definition.key].definition)
    return Outcome.UNCHANGED if is_equal else Outcome.UPDATED


def judge(found: Found, held: Mapping[Key, Held], seen: Seen) -> Iterator[Report]:
    """Yield the result for each object of a file, before it is written; note the file in *seen*.

    If files define an object in one version differently, only the first of them counts.
    """
    if found.reason:
        yield Report(found.file, Outcome.REFUSED, reason=found.reason)
    for definition in found.definitions:
        object_id, version = definition.key
        outcome, reason = compare(definition, held), ""
        first = seen.setdefault(definition.key, found._replace(definitions=(definition,)))
        if _content(first.definitions[0]) != _content(definition):
            outcome, reason = Outcome.REFUSED, f"{first.file} defines this version differently"
        elif first.file != found.file:
            outcome = Outcome.UNCHANGED
        yield Report(found.file, outcome, object_id, version, definition.name, reason)


def _content(definition: ObjectDefinition) -> tuple[Any, ...]:
    """Return the parts of a definition that the database holds, without its origin."""
    kept = (
        definition.name,
        definition.description,
        definition.urn,
        definition.multiple,
        definition.mandatory,
    )
    return (*kept, definition.resources)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files at *paths*, and in folders those that end with .xml, sorted; also folders that cannot be read."""
    count = visited = 0
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        refused: list[OSError] = []
        for folder, folders, names in os.walk(path, onerror=refused.append):
            folders.sort()
            visited += 1
            if visited > MOST_FOLDERS:
                raise InvalidObjectXml(
                    f"{path} holds more than {MOST_FOLDERS} folders: name the folders with the files"
                )
            chosen = [name for name in sorted(names) if name.lower().endswith(".xml")]
            count += len(chosen)
            if count > MOST_FILES:
                raise InvalidObjectXml(
                    f"The folders hold more than {MOST_FILES} files: import fewer at a time"
                )
            yield from (Path(folder, name) for name in chosen)
        yield from (Path(error.filename) for error in refused)


def _read(file: Path) -> Found:
    """Return the definitions in *file*, or the reason why it has none."""
    name = make_storable(str(file))
    try:
        origin = make_storable(f"imported: {file.name}", 255)
        return Found(name, object_xml.parse(_content_of(file), origin))
    except OSError as error:
        return Found(name, reason=f"the file cannot be read: {error.strerror}")
    except InvalidObjectXml as error:
        return Found(name, reason=str(error))


def _content_of(file: Path) -> bytes:
    """Return the bytes of a regular *file*, without waiting for any. Raise InvalidObjectXml or OSError."""
    # To open a device may do something, such as rewind a tape, so it is not opened at all.
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise InvalidObjectXml("it is not a file that can be read")
    # A pipe could stand here by now, and a file of the kernel such as /proc/kmsg counts as regular: neither may block.
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb", buffering=0) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise InvalidObjectXml("it is not a file that can be read")
        object_xml.check_size(os.fstat(opened.fileno()).st_size)
        # Such a file has a size of 0, and may never end.
        content = bytearray()
        while len(content) <= object_xml.MAX_BYTES:
            piece = opened.read(PIECE)
            if piece is None:
                raise InvalidObjectXml("the file cannot be read: it has nothing to read yet")
            if not piece:
                break
            content += piece
        object_xml.check_size(len(content))
        return bytes(content)


def _import(files: Sequence[Found], seen: Seen) -> list[Report]:
    """Write the definitions in *files* in one transaction, and return the reports."""
    reports: list[Report] = []
    changed: list[ObjectDefinition] = []
    with transaction.atomic():
        _lock(DEFAULT_DB_ALIAS)
        held = _held(DEFAULT_DB_ALIAS, {one.object_id for file in files for one in file.definitions})
        for file in files:
            results = list(judge(file, held, seen))
            reports += results
            written = {
                (result.object_id, result.version)
                for result in results
                if result.outcome in (Outcome.CREATED, Outcome.UPDATED)
            }
            changed += [definition for definition in file.definitions if definition.key in written]
        _write(changed, held, DEFAULT_DB_ALIAS)
    # Also of unchanged definitions: an import that was stopped here goes on when it is repeated.
    accepted = [report for report in reports if report.outcome is not Outcome.REFUSED]
    retyping.retype({report.object_id for report in accepted if report.object_id is not None})
    return reports


def _lock(using: str) -> None:
    """Let one process at a time change definitions, until its transaction ends, and none store values meanwhile."""
    Definitions.objects.using(using).get_or_create(pk=ONLY)
    if using == DEFAULT_DB_ALIAS:
        catalogue.lock()
    Definitions.objects.using(using).select_for_update().get(pk=ONLY)


def _held(using: str, object_ids: Collection[int] | None = None) -> dict[Key, Held]:
    """Return the definitions of some objects, or of all, that the database holds."""
    objects, resources = (
        ObjectType.objects.using(using).order_by(),
        ResourceType.objects.using(using).order_by(),
    )
    if object_ids is not None:
        objects = objects.filter(object_id__in=object_ids)
        resources = resources.filter(object__object_id__in=object_ids)
    by_object: dict[int, list[tuple[Any, ...]]] = {}
    for row in resources.values_list("object_id", "pk", "resource_id", *RESOURCE_FIELDS):
        by_object.setdefault(row[0], []).append(row[1:])
    found = {}
    for pk, object_id, version, *fields in objects.values_list("pk", "object_id", "version", *FIELDS):
        rows = sorted(by_object.get(pk, ()), key=lambda row: row[1])
        name, description, urn, multiple, mandatory, origin = fields
        definition = ObjectDefinition(
            *(object_id, version, name, description, urn, "", multiple, mandatory),
            tuple(_resource(row[1:]) for row in rows),
            origin,
        )
        found[definition.key] = Held(pk, definition, {row[1]: row[0] for row in rows})
    return found


def _resource(row: Sequence[Any]) -> ResourceDefinition:
    found = ResourceDefinition._make(row)
    return found._replace(type=DataType(found.type) if found.type else None)


def _write(changed: Sequence[ObjectDefinition], held: Mapping[Key, Held], using: str) -> None:
    """Write the definitions *changed*, and raise the revision."""
    if not changed:
        return
    rows = [_object_row(definition) for definition in changed]
    # The keys of rows that exist already are set too.
    _upsert(ObjectType, rows, ("object_id", "version"), FIELDS, using)
    resources, gone = [], []
    for row, definition in zip(rows, changed, strict=True):
        before = held.get(definition.key)
        same = set(before.definition.resources) if before else set()
        resources += [_resource_row(row, one) for one in definition.resources if one not in same]
        left = {one.resource_id for one in definition.resources}
        gone += (
            [key for resource_id, key in before.resources.items() if resource_id not in left]
            if before
            else []
        )
    _upsert(ResourceType, resources, ("object", "resource_id"), RESOURCE_FIELDS, using)
    for some in batched(gone, ROWS_AT_ONCE):
        ResourceType.objects.using(using).filter(pk__in=some).delete()
    definitions = Definitions.objects.using(using).get(pk=ONLY)
    # The clock is in it, so that a restored backup does not reach a revision that a running process has read.
    definitions.revision = max(definitions.revision + 1, time.time_ns() // 1000)
    definitions.save(using=using, update_fields=["revision"])


def _upsert(
    model: Any, rows: Sequence[Any], unique: Sequence[str], fields: Sequence[str], using: str
) -> None:
    model.objects.using(using).bulk_create(
        rows, ROWS_AT_ONCE, update_conflicts=True, unique_fields=unique, update_fields=fields
    )


def _object_row(definition: ObjectDefinition) -> ObjectType:
    fields = {field: getattr(definition, field) for field in FIELDS}
    return ObjectType(object_id=definition.object_id, version=definition.version, **fields)


def _resource_row(row: ObjectType, resource: ResourceDefinition) -> ResourceType:
    fields = dict(zip(RESOURCE_FIELDS, resource[1:], strict=True)) | {"type": resource.type or ""}
    return ResourceType(object=row, resource_id=resource.resource_id, **fields)
