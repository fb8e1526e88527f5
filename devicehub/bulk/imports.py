"""Import of devices from a table: each row becomes a device with new credentials.

An upload is kept in parts until its devices are created, since people first map its columns and read the verdicts.
The rows hold no secret: columns that are called like one are emptied before they are stored. Uploads are deleted
after their use, or after a day.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import IO, Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.signals import post_save
from django.utils import timezone

from authsvc import audit
from authsvc.core.access import account_key
from authsvc.credentials import mark_of
from authsvc.text import make_storable
from devicehub import provisioning, visibility
from devicehub.bulk import rotations, table_file
from devicehub.bulk.issued import Issued, entry
from devicehub.bulk.table_file import Row
from devicehub.bulk.xlsx_package import UnreadableTable
from devicehub.db.portions import batched
from devicehub.kinds.identifiers import is_device_id, mqtt_username
from devicehub.kinds.registry import Kind, registry
from devicehub.models import BaseDevice, DeviceImport, ImportPart, Rotation, RotationMember

BATCH = 200  # Devices in one transaction.
PART = 500  # Rows of an upload in one row of the database.
SHOWN = 100  # Verdicts that are kept for the page.
SHOWN_CELL = 50  # Characters of a value of metadata on the page.
SAMPLES = 3  # Values of a column that are shown beside its heading.
SAMPLE_ROWS = 100  # The first rows, from which they come.
KEPT = timedelta(days=1)
PAUSE = rotations.PAUSE

DEVICE_ID, NAME, SITE, TYPE, METADATA, IGNORED = "device_id", "name", "site", "type", "metadata", ""
SINGLE = (DEVICE_ID, NAME, SITE, TYPE)  # Only one column can be each of these.
ALIASES = {
    **dict.fromkeys(("device_id", "deviceid", "device", "id", "serial", "serial_number"), DEVICE_ID),
    **dict.fromkeys(("name", "device_name", "label"), NAME),
    **dict.fromkeys(("site", "location"), SITE),
    **dict.fromkeys(("type", "device_type", "kind"), TYPE),
}
SECRET = re.compile(
    r"passw|passphrase|pwd|secret|token|hash|api_?key|private|psk|pre_?shared|credential"
    r"|kennwort|geheim|schl(?:ue|u|_)ssel|contrase|senha|mot_de_passe|(?:^|_)(?:pass|key|pin|puk)(?:_|$)"
)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
LONGEST = {NAME: 255, SITE: 100}


@dataclass(frozen=True)
class Limits:
    """The types of which a person may add devices, and the sites at which; None is every site."""

    kinds: Collection[str] | None = None
    sites: Collection[str] | None = None


@dataclass
class Candidate:
    """A row of a table, and its verdict: `new`, `exists` or `error` with the column and the reason."""

    line: int
    kind: Kind | None = None
    device_id: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    verdict: str = "new"
    column: str = ""
    problem: str = ""
    is_metadata: bool = False  # *column* is a heading of metadata, not a field of a device.

    def refuse(self, column: str, problem: str, *, is_metadata: bool = False) -> None:
        """Make the verdict an error."""
        self.verdict, self.column, self.problem = "error", column, problem
        self.is_metadata = is_metadata

    @property
    def key(self) -> str:
        return self.kind.key(self.device_id) if self.kind else ""

    @property
    def known_kind(self) -> Kind:
        """The kind of a row without an error."""
        if self.kind is None:
            raise ValueError(f"Line {self.line} has no type")
        return self.kind

    @property
    def username(self) -> str:
        names = self.known_kind.device_model._meta
        return mqtt_username(names.app_label, str(names.model_name), self.device_id)


def guess(headings: Sequence[str]) -> list[str]:
    """Return what each of *headings* becomes: a field of a device, metadata under its own name, or nothing."""
    columns: list[str] = []
    for heading in headings:
        name = _word(heading)
        found = IGNORED if not name or is_secret(heading) else ALIASES.get(name, METADATA)
        columns.append(METADATA if found in SINGLE and found in columns else found)
    return columns


def is_secret(heading: str) -> bool:
    """Return whether a column is called like a secret, so that its cells are not kept.

    >>> is_secret("API Key"), is_secret("Kennwort"), is_secret("PIN"), is_secret("keyboard"), is_secret("Pinecone")
    (True, True, True, False, False)
    """
    return SECRET.search(_word(heading)) is not None


def _word(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", heading.lower()).strip("_")


def check_columns(columns: Sequence[str]) -> None:
    """Raise UnreadableTable if *columns* name no device id, or one field twice."""
    if DEVICE_ID not in columns:
        raise UnreadableTable("The column device_id is missing: choose the column that holds the ids")
    for name in SINGLE:
        if list(columns).count(name) > 1:
            raise UnreadableTable(f"Two columns are {name}; choose one of them")


def judge(
    rows: Iterable[Row],
    headings: Sequence[str],
    columns: Sequence[str],
    kind: Kind | None,
    limits: Limits,
    *,
    compared: bool = True,
) -> Iterator[list[Candidate]]:
    """Yield the rows with their verdicts, by batch. *kind* is the type of rows that name none. Write nothing.

    Unless they are *compared* with the existing identities, the verdict of all others is `new`: create() compares.
    """
    check_columns(columns)
    seen: set[str] = set()
    for batch in batched(rows, BATCH):
        candidates = [_candidate(row, headings, columns, kind, limits) for row in batch]
        for candidate in candidates:
            _refuse_second(candidate, seen)
        if compared:
            recheck(candidates, limits)
        yield candidates


def recheck(candidates: Sequence[Candidate], limits: Limits) -> None:
    """Compare those of *candidates* that have no error with the identities that exist now."""
    left = [candidate for candidate in candidates if candidate.verdict != "error"]
    owners = provisioning.owners({name for c in left for name in (c.device_id, c.username)})
    visible = _visible(left, limits)
    used = visibility.with_records({c.key for c in left}) if limits.sites is not None else set()
    for candidate in left:
        found = {
            key: name for name in (candidate.device_id, candidate.username) for key in owners.get(name, ())
        }
        own = found.pop(candidate.key, None)
        if found:
            key, name = next(iter(found.items()))
            owner = _owner(key) if limits.sites is None else "another identity"
            candidate.refuse(DEVICE_ID, f"{owner} has the name {name} already")
        elif own is not None and candidate.key not in visible:
            candidate.refuse(DEVICE_ID, f"another identity has the name {candidate.device_id} already")
        elif own is None and candidate.key in used:
            candidate.refuse(DEVICE_ID, "an earlier device had this id")
        else:
            candidate.verdict = "new" if own is None else "exists"


def create(
    candidates: Sequence[Candidate],
    limits: Limits,
    *,
    rotation: Rotation | None = None,
    before_commit: Callable[[list[Issued]], None] = lambda _: None,
) -> list[Issued]:
    """Create the devices of those of *candidates* that are new, in one transaction; return their credentials.

    They become members of *rotation*. *before_commit* gets the credentials in the transaction. If another program
    takes a name meanwhile, the devices are created one by one, and that row gets an error.
    """
    try:
        with transaction.atomic():
            recheck(candidates, limits)
            new = [candidate for candidate in candidates if candidate.verdict == "new"]
            issued = _create_new(new, rotation)
            before_commit(issued)
            return issued
    except (IntegrityError, provisioning.IdentityTaken):
        if len(candidates) == 1:
            candidates[0].refuse(DEVICE_ID, "another identity took one of its names meanwhile")
            return []
    options: dict[str, Any] = {"rotation": rotation, "before_commit": before_commit}
    return [found for candidate in candidates for found in create([candidate], limits, **options)]


def store(user: Any, file: IO[bytes], file_name: str, kind: str) -> DeviceImport:
    """Keep the rows of *file* for the next steps. Raise UnreadableTable. Older uploads of *user* are deleted."""
    with transaction.atomic():
        delete_old()
        DeviceImport.objects.filter(user=user, finished_at=None).filter(_is_idle()).delete()
        rows = table_file.read(file)
        _, headings = next(rows)
        columns = guess(headings)
        hidden = [number for number, name in enumerate(headings) if is_secret(name)]
        upload = DeviceImport.objects.create(
            user=user,
            file_name=make_storable(file_name, 100),
            kind=kind,
            headings=[make_storable(name, 100) for name in headings],
            columns=columns,
            uploaded_at=timezone.now(),
        )
        for part in batched(_storable(rows, hidden), PART):
            ImportPart.objects.create(upload=upload, rows=part)
            upload.size += len(part)
        upload.save(update_fields=["size"])
    return upload


def rows_of(upload: DeviceImport) -> Iterator[Row]:
    """Yield the rows of *upload*, of which at most PART are in memory."""
    pks = list(upload.parts.order_by("pk").values_list("pk", flat=True))
    for pk in pks:
        part = ImportPart.objects.filter(pk=pk).first()
        if part is not None:
            yield from ((line, cells) for line, cells in part.rows)


def samples(upload: DeviceImport) -> list[list[str]]:
    """Return the first different values of each column of *upload*. A column that is called like a secret has none."""
    part = upload.parts.order_by("pk").first()
    rows = [cells for _, cells in part.rows[:SAMPLE_ROWS]] if part else []
    return [
        list(dict.fromkeys(cells[number] for cells in rows if number < len(cells) and cells[number]))[
            :SAMPLES
        ]
        for number in range(len(upload.headings))
    ]


def check(upload: DeviceImport, limits: Limits) -> None:
    """Judge all rows of *upload*; keep the number of each verdict, and the first verdicts, errors first."""
    counts: Counter[str] = Counter()
    first: dict[bool, list[Candidate]] = {True: [], False: []}
    for candidates in _judged(upload, limits):
        for candidate in candidates:
            counts[candidate.verdict] += 1
            kept = first[candidate.verdict == "error"]
            if len(kept) < SHOWN:
                kept.append(candidate)
    upload.counts = dict(counts)
    upload.verdicts = [_described(candidate) for candidate in (first[True] + first[False])[:SHOWN]]
    upload.save(update_fields=["columns", "kind", "counts", "verdicts"])


def is_running(upload: DeviceImport) -> bool:
    """Return whether a run creates the devices of *upload* now."""
    touched = upload.touched_at
    return upload.finished_at is None and touched is not None and timezone.now() - touched < PAUSE


@transaction.atomic
def claim(upload: DeviceImport) -> bool:
    """Return whether the caller may run the import: no run of it or of its rotation works, and it is not finished.

    The run has its number from here on, so a later claim stops it even before its first batch.
    """
    rows = DeviceImport.objects.filter(_is_idle(), pk=upload.pk, finished_at=None)
    if not rows.update(touched_at=timezone.now(), done=0):
        return False
    upload.refresh_from_db(fields=["rotation"])
    if rotations.claim(begin(upload), even_ended=True):
        return True
    transaction.set_rollback(True)
    return False


def begin(upload: DeviceImport) -> Rotation:
    """Return the rotation of *upload*, in which its new devices are watched; make it if there is none."""
    if upload.rotation is None:
        with transaction.atomic():
            upload.rotation = rotations.start(
                f"Import of {upload.file_name}", [], until=None, api_keys=True, origin=Rotation.Origin.IMPORT
            )
            upload.save(update_fields=["rotation"])
    return upload.rotation


def run(upload: DeviceImport, limits: Limits) -> Iterator[list[Issued]]:
    """Create the new devices of *upload* and yield their credentials, by batch; delete its rows at the end.

    A batch is committed when it is yielded. After a run that broke off, another run creates the rest; the devices
    that exist without anybody knowing their credentials are in the rotation of the import, which issues new ones.
    Raise rotations.Overtaken before a batch if another run began since claim(), of the import or of its rotation.
    """
    rotation, is_recorded = begin(upload), False
    for candidates in _judged(upload, limits, compared=False):
        with transaction.atomic():
            rotations.go_on(rotation)
            issued = create(candidates, limits, rotation=rotation)
            if issued and not is_recorded:
                expected = upload.counts.get("new", 0) - upload.created
                rotations.record_shown(rotation, max(expected, len(issued)))
                is_recorded = True
            DeviceImport.objects.filter(pk=upload.pk).update(
                touched_at=timezone.now(),
                done=F("done") + len(candidates),
                created=F("created") + len(issued),
            )
        if issued:
            yield issued
    now = timezone.now()
    with transaction.atomic():
        rotations.go_on(rotation, written_at=now)
        DeviceImport.objects.filter(pk=upload.pk).update(finished_at=now)
        upload.parts.all().delete()


def delete_old() -> None:
    """Delete uploads older than KEPT."""
    DeviceImport.objects.filter(uploaded_at__lt=timezone.now() - KEPT).filter(_is_idle()).delete()


def _is_idle() -> Q:
    return Q(touched_at=None) | Q(touched_at__lt=timezone.now() - PAUSE) | Q(finished_at__isnull=False)


def _storable(rows: Iterable[Row], hidden: Collection[int]) -> Iterator[tuple[int, list[str]]]:
    for line, cells in rows:
        yield line, ["" if n in hidden else make_storable(cell) for n, cell in enumerate(cells)]


def _judged(upload: DeviceImport, limits: Limits, *, compared: bool = True) -> Iterator[list[Candidate]]:
    kind = registry.get(upload.kind) if upload.kind else None
    return judge(rows_of(upload), upload.headings, upload.columns, kind, limits, compared=compared)


def _described(candidate: Candidate) -> dict[str, Any]:
    return {
        "line": candidate.line,
        "type": candidate.kind.slug if candidate.kind else "",
        "device_id": candidate.device_id[:128],
        "name": str(candidate.fields.get("name", ""))[:255],
        "site": str(candidate.fields.get("site", ""))[:100],
        "metadata": {name: text[:SHOWN_CELL] for name, text in candidate.fields.get("metadata", {}).items()},
        "verdict": candidate.verdict,
        "column": candidate.column,
        "problem": candidate.problem,
        "is_metadata": candidate.is_metadata,
    }


def _candidate(
    row: Row, headings: Sequence[str], columns: Sequence[str], kind: Kind | None, limits: Limits
) -> Candidate:
    """Return the device that *row* describes, with an error if one of its values cannot be used."""
    line, cells = row
    candidate = Candidate(line, kind)
    values = dict.fromkeys(SINGLE, "")
    metadata: dict[str, str] = {}
    for heading, column, cell in zip(headings, columns, cells, strict=False):
        if column == METADATA and cell:
            metadata[heading] = cell
        elif column in values:
            values[column] = cell
    candidate.device_id = values[DEVICE_ID]
    candidate.fields = {"name": values[NAME], "site": values[SITE], "metadata": metadata}
    if len(cells) > len(columns):
        candidate.refuse("", "there are more cells than the first line has names")
        return candidate
    _check_type(candidate, values[TYPE], limits)
    _check_values(candidate, values, metadata)
    if limits.sites is not None and values[SITE] not in limits.sites and candidate.verdict != "error":
        candidate.refuse(SITE, f"{values[SITE] or 'no site'} is not one of your sites")
    return candidate


def _check_type(candidate: Candidate, named: str, limits: Limits) -> None:
    if named:
        candidate.kind = registry.get(named) or registry.get(named.lower())
    if candidate.kind is None:
        existing = ", ".join(sorted(kind.slug for kind in registry))
        candidate.refuse(TYPE, f"there is no device type {named[:100]!r}; existing types: {existing}")
    elif limits.kinds is not None and candidate.kind.slug not in limits.kinds:
        candidate.refuse(TYPE, f"you may not add devices of the type {candidate.kind.slug}")


def _check_values(candidate: Candidate, values: dict[str, str], metadata: dict[str, str]) -> None:
    if candidate.verdict == "error":
        return
    if not is_device_id(values[DEVICE_ID]):
        candidate.refuse(DEVICE_ID, "use 1-128 letters, digits, _ : and -")
        return
    for name, most in LONGEST.items():
        if len(values[name]) > most:
            candidate.refuse(name, f"use at most {most} characters")
            return
    for own, cells in ((False, values), (True, metadata)):
        for name, text in cells.items():
            if CONTROL.search(text):
                problem = "it holds a line break or another control character"
                candidate.refuse(name, problem, is_metadata=own)
                return


def _refuse_second(candidate: Candidate, seen: set[str]) -> None:
    """Refuse *candidate* if one of its names is in *seen* already; else add them."""
    if candidate.verdict == "error":
        return
    names = {candidate.device_id, candidate.username}
    if names & seen:
        candidate.refuse(DEVICE_ID, "it is in the file twice")
    seen |= names


def _owner(key: str) -> str:
    """Return the identity *key* in words."""
    prefix = account_key("")
    return f"the service account {key.removeprefix(prefix)}" if key.startswith(prefix) else key


def _visible(candidates: Sequence[Candidate], limits: Limits) -> set[str]:
    """Return the keys of those of *candidates* whose device may be seen: it is at one of the sites, or not there."""
    keys = {candidate.key for candidate in candidates}
    if limits.sites is None:
        return keys
    ids = [candidate.device_id for candidate in candidates]
    for kind in {candidate.known_kind for candidate in candidates}:
        elsewhere = kind.device_model._base_manager.filter(device_id__in=ids).exclude(site__in=limits.sites)
        keys -= {kind.key(device_id) for device_id in elsewhere.values_list("device_id", flat=True)}
    return keys


def _create_new(candidates: Sequence[Candidate], rotation: Rotation | None) -> list[Issued]:
    issued: list[Issued] = []
    for kind in dict.fromkeys(candidate.known_kind for candidate in candidates):
        devices: list[BaseDevice] = []
        for candidate in candidates:
            if candidate.kind is kind:
                device = kind.device_model(device_id=candidate.device_id, **candidate.fields)
                credentials = device.generate_credentials()
                devices.append(device)
                issued.append(entry(kind, device, credentials))
        _insert(kind, devices)
        _note(kind, devices, rotation)
        transaction.on_commit(partial(_announce, kind, devices))
    return issued


def _insert(kind: Kind, devices: list[BaseDevice]) -> None:
    """Insert *devices* by one statement, unless the project has code that runs at the save of each."""
    model = kind.device_model
    saves_itself = model.save is not BaseDevice.save or post_save.has_listeners(model)
    if saves_itself or model._meta.parents:
        for device in devices:
            device.save(force_insert=True)
    else:
        model.objects.bulk_create(devices)


def _note(kind: Kind, devices: Sequence[BaseDevice], rotation: Rotation | None) -> None:
    created = (
        audit.Change(kind.key(d.device_id), None, {"mqtt_username": d.mqtt_username, "site": d.site})
        for d in devices
    )
    audit.record_many("device_created", created)
    if rotation is not None:
        RotationMember.objects.bulk_create(
            RotationMember(
                rotation=rotation,
                kind=kind.slug,
                device_key=kind.key(device.device_id),
                changed_at=device.credentials_changed_at,
                password_mark=device.password_mark,
                key_mark=mark_of(device.api_key or ""),
            )
            for device in devices
        )


def _announce(kind: Kind, devices: Sequence[BaseDevice]) -> None:
    for device in devices:
        provisioning.announce(kind, device)
