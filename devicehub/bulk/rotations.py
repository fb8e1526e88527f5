"""Rotations of a fleet: a named set of devices gets new credentials, and its change is watched until it ends.

The passwords go into one file, once. A run works in batches, each in a transaction of its own, and a batch is
committed before its lines are written. After a run that broke off, some devices may have a password that nobody
received. Until they use it their old password stays valid, so that nothing is lost: issue() again replaces unused
passwords, and roll_back() restores the old ones.

Each run has a number. A run that stalled, and that another run or the end of the rotation overtook, changes nothing
more: it raises Overtaken, so that its file is never complete. While an end works, no run begins.

A member and the row of its device, with the password that each act finds and leaves:

- waiting: the device has its old password only. issue() gives it a new one.
- issued: the new one is current, the old one previous, until its end. issue() replaces the new one, whose mark goes
  to *replaced_marks*; roll_back() restores the old one; finish() ends it.
  A new API key has no overlap: the device either has it or has no valid key. So issue() replaces a key that it issued
  only if the device cannot have it: after an import, before the first login. roll_back() restores the old key, unless
  the key was changed since.
- used: a login with the new one was noted, in *is_used* or as the last login. Only finish() concerns it.
- used, but not noted yet, for about a second: after issue() DeviceDirectory.retire_previous() puts the used one in the
  place of the old one, which that device does not have any more. So it does after another rotation, or one of a person
  that keeps the old one. After roll_back() it does the same beside the restored one, and finish() ends the old one
  only. Without an old one no first use is noted but the last login, and nothing is put back: the page says so. A grace
  for the replaced password would keep one that was to end at once.
- issued without an old one: the device had no password before, for example because it was revoked, or the old one
  ended: at once, by its date or by a person. As issued, but roll_back() restores nothing and leaves the device as it
  is. If it logged in before, it counts as *without_old*, not as *old*.
- finished or rolled back: *end* is set, and no act or late login changes the device for this rotation.
- changed otherwise: the device has another password. Every act and late login leaves it alone. A change of the
  API key alone does not count.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Replace, Substr
from django.utils import timezone

from authsvc import audit
from authsvc.core import passwords
from authsvc.credentials import mark_in_sql, mark_of
from authsvc.models import LastLogin
from authsvc.text import make_storable
from devicehub import provisioning
from devicehub.bulk.changes import BATCH, Devices, record
from devicehub.bulk.issued import Issued, entry
from devicehub.db.portions import batched
from devicehub.errors import DevicehubError
from devicehub.kinds.identifiers import mqtt_username
from devicehub.kinds.registry import Kind, registry
from devicehub.models import BaseDevice, Rotation, RotationMember, digest_api_key
from devicehub.provisioning import CREDENTIAL_FIELDS, IdentityTaken

MOST = 100_000  # Devices of one rotation.
PAUSE = timedelta(seconds=30)  # A run without a batch for this long has broken off.
KEPT = timedelta(days=366)  # Older rotations are deleted when a new one starts.
WITHOUT_NAMES = [name for name in CREDENTIAL_FIELDS if name != "mqtt_username"]

Members = QuerySet[RotationMember]


class TooManyDevices(DevicehubError):
    """A rotation would have more than MOST devices."""


class Overtaken(DevicehubError):
    """A run or an end may not go on, because a later one came first. The file of a run is then of no use."""

    def __init__(self) -> None:
        super().__init__(
            "This run stopped, because a later one or the end of the rotation came first. Its passwords may not be "
            "valid: if there is no later file, rotate again what is left"
        )


@dataclass(frozen=True)
class Progress:
    """The numbers of members by state. Each member counts once, except that *waiting* ones are not rotated yet."""

    total: int
    waiting: int  # Not rotated yet.
    confirmed: int  # Logged in with the new password.
    old: int  # Logged in before, but not with the new password; the old one is valid.
    without_old: int  # Logged in before, but not with the new password; no old one is valid.
    never: int  # Never logged in.
    changed: int  # Changed or deleted since.
    ended: int  # Finished or rolled back.
    restorable: int  # Those of *old* and *never* with an old password that roll_back() restores.
    overlapping: int  # Those with a valid old password, which finish() ends.

    @property
    def unconfirmed(self) -> int:
        """Return the number of devices that have a new password and did not log in with it."""
        return self.old + self.without_old + self.never


@transaction.atomic
def start(
    name: str,
    selections: Sequence[tuple[Kind, Devices]],
    *,
    until: datetime | None,
    api_keys: bool = False,
    origin: str = Rotation.Origin.ROTATION,
) -> Rotation:
    """Make a rotation of the devices in *selections*; issue() then changes them. Raise TooManyDevices.

    *until* is the end of the old passwords, as in provisioning.rotate_password().
    """
    now = timezone.now()
    Rotation.objects.filter(started_at__lt=now - KEPT).delete()
    rotation = Rotation.objects.create(
        name=make_storable(name.strip(), 100),
        origin=origin,
        started_by=make_storable(audit.current_actor().name, 150),
        started_at=now,
        touched_at=now,
        until=until,
        api_keys=api_keys,
    )
    total = 0
    for kind, devices in selections:
        ids = devices.order_by("pk").values_list("device_id", flat=True).iterator(chunk_size=1000)
        for some in batched(ids, 1000):
            total += len(some)
            if total > MOST:
                raise TooManyDevices(f"A rotation has at most {MOST:,} devices; choose fewer")
            RotationMember.objects.bulk_create(
                RotationMember(rotation=rotation, kind=kind.slug, device_key=kind.key(device_id))
                for device_id in some
            )
    action = "import_started" if origin == Rotation.Origin.IMPORT else "rotation_started"
    audit.record(action, audit_key(rotation), after={"name": rotation.name, "devices": total})
    return rotation


def audit_key(rotation: Rotation) -> str:
    """Return the name of *rotation* in the audit."""
    return f"rotation/{rotation.pk}"


def record_shown(rotation: Rotation, count: int) -> None:
    """Record that a file with the new credentials of *count* devices is written: once, with its first lines."""
    audit.record("credentials_shown", audit_key(rotation), after={"devices": count})


def is_running(rotation: Rotation) -> bool:
    """Return whether a run of issue() writes the file of *rotation* now."""
    return rotation.written_at is None and timezone.now() - rotation.touched_at < PAUSE


def claim(rotation: Rotation, *, even_ended: bool = False) -> bool:
    """Return whether the caller may run: no other run or end works, and the rotation has not ended or may have.

    A run that stalled is overtaken by this.
    """
    now = timezone.now()
    free = Q(written_at__isnull=False) | Q(touched_at__lt=now - PAUSE) | Q(touched_at=F("started_at"))
    rows = Rotation.objects.filter(free, pk=rotation.pk)
    return _next_run(rotation, rows if even_ended else rows.filter(ended_at=None))


@transaction.atomic
def _next_run(rotation: Rotation, rows: QuerySet[Rotation]) -> bool:
    if not rows.update(run=F("run") + 1, touched_at=timezone.now(), written_at=None):
        return False
    rotation.refresh_from_db(fields=["run"])
    return True


@contextlib.contextmanager
def _instead_of_runs(rotation: Rotation) -> Iterator[None]:
    """Stop every run of *rotation* before its next batch, and let none begin in the block. The file stays as it is.

    Raise Overtaken if another end came meanwhile.
    """
    with transaction.atomic():
        rows = Rotation.objects.select_for_update().filter(pk=rotation.pk)
        times = rows.values("touched_at", "written_at").get()
        _next_run(rotation, rows)
    try:
        yield
    finally:
        is_latest = Rotation.objects.filter(pk=rotation.pk, run=rotation.run).update(**times)
    if not is_latest:
        raise Overtaken


def go_on(rotation: Rotation, *, written_at: datetime | None = None) -> None:
    """Note a step of the run of *rotation*, and lock it in the caller's transaction. Raise Overtaken."""
    rows = Rotation.objects.filter(pk=rotation.pk, run=rotation.run)
    if not rows.update(touched_at=timezone.now(), written_at=written_at):
        raise Overtaken


def issue(
    rotation: Rotation, members: Members, *, before_commit: Callable[[list[Issued]], None] = lambda _: None
) -> Iterator[list[Issued]]:
    """Give new credentials to those of *members* that have not used theirs; yield them in clear text, by batch.

    An unused password of an earlier run is replaced, and the old password stays valid. An API key of an earlier run
    stays, since the device may use it; only devices of an import that never logged in get another. Devices that were
    changed otherwise since are left out. Each batch is committed when it is yielded; *before_commit* gets it before
    that. Raise Overtaken before a batch if this is not the latest run any more.
    """
    still_open = open_members(members)
    last, expected = 0, still_open.count()
    while some := list(still_open.filter(pk__gt=last).order_by("pk")[:BATCH]):
        with transaction.atomic():
            go_on(rotation)
            issued = [
                found for kind, group in _by_kind(some) for found in _issue(rotation, still_open, kind, group)
            ]
            if issued and expected:
                record_shown(rotation, expected)
                expected = 0
            before_commit(issued)
        last = some[-1].pk
        if issued:
            yield issued
    go_on(rotation, written_at=timezone.now())


def finish(rotation: Rotation, members: Members) -> int:
    """End the old passwords of *members* now; return how many had a valid one. Raise Overtaken as issue() does."""
    ended = 0
    with _instead_of_runs(rotation):
        for kind, group in _pages(members):
            with transaction.atomic():
                go_on(rotation)
                pairs = _locked(members, kind, group)
                devices = [device for device, _ in _unchanged(pairs) if device.previous_password_hash]
                had_valid = [device for device in devices if device.has_overlap()]
                _update(kind, devices, previous_password_hash="", previous_valid_until=None)
                _end([member for _, member in pairs], RotationMember.End.FINISHED)
                record(kind, had_valid, "overlap_ended")
                ended += len(had_valid)
    return ended


def roll_back(rotation: Rotation, members: Members) -> int:
    """Restore the old passwords and API keys of those of *members* that have not used the new one; return how many.

    A device whose password was changed since, or whose old password is not valid any more, keeps what it has. Of the
    expiry of the old password and one that a person set since, the earlier one holds.
    Raise Overtaken as issue() does.
    """
    restored, still_open = 0, open_members(members)
    with _instead_of_runs(rotation):
        for kind, group in _pages(still_open):
            with transaction.atomic():
                go_on(rotation)
                unchanged = _unchanged(_locked(still_open, kind, group))
                pairs = [(device, member) for device, member in unchanged if device.has_overlap()]
                rolled_back: list[BaseDevice] = []
                for device, member in pairs:
                    if _has_issued_key(device, member):
                        device.api_key = member.replaced_key or None
                        rolled_back.append(device)
                    expiry = _earlier(device.password_expires_at, member.replaced_expiry)
                    device.set_hash(device.previous_password_hash)
                    device.password_expires_at = expiry
                devices = [device for device, _ in pairs]
                _save(kind, devices)
                _end([member for _, member in pairs], RotationMember.End.ROLLED_BACK)
                audit.record_many("password_rolled_back", _changes(kind, devices))
                record(kind, rolled_back, "api_key_rolled_back")
                restored += len(pairs)
    return restored


@transaction.atomic
def close(rotation: Rotation, action: str, count: int, *, whole: bool = True) -> None:
    """Record that *rotation* has ended for *count* devices, by `rotation_finished` or `rotation_rolled_back`.

    It stays open unless these are *whole*, all that it has: a user of one site ends a part.
    """
    if whole:
        Rotation.objects.filter(pk=rotation.pk).update(ended_at=timezone.now())
    audit.record(action, audit_key(rotation), after={"name": rotation.name, "devices": count})


def progress(members: Members) -> Progress:
    """Return the numbers of *members* by state."""
    rows = _with_standing(members).annotate(found=F("standing")).order_by()
    counts = dict(rows.values_list("found").annotate(count=models.Count("pk")))
    found = {name: counts.get(name, 0) for name in STATES}
    with_old = {name: counts.get(name + WITH_OLD, 0) for name in ("confirmed", "never")}
    for name, count in with_old.items():
        found[name] += count
    restorable = found["old"] + with_old["never"]
    overlapping = restorable + with_old["confirmed"]
    return Progress(total=sum(found.values()), **found, restorable=restorable, overlapping=overlapping)


STATES = ("waiting", "confirmed", "old", "without_old", "never", "changed", "ended")
# Ends the *standing* of a confirmed or never seen member that has a valid old password.
WITH_OLD = "_with_old"


def with_state(members: Members) -> QuerySet[Any]:
    """Return *members* with *state*, one of STATES, and *seen_at* and *used_mark* of their last logins."""
    state = Replace("standing", models.Value(WITH_OLD), models.Value(""))
    found: QuerySet[Any] = _with_standing(members).annotate(used_mark=F("used_mark"), state=state)
    return found


def _with_standing(members: Members) -> QuerySet[Any]:
    """Return *members* with *seen_at* and the alias *standing*: the state, with WITH_OLD behind some of two states.

    It is not selected, since each place of it in a statement is computed anew. An old password shows that the device
    is unchanged, so most devices are looked up once.
    """
    is_noted = _is_noted()
    standing = _first(
        (~Q(end=""), "ended"),
        (Q(changed_at=None), "waiting"),
        (
            Q(has_old=True),
            _first((is_noted, "confirmed" + WITH_OLD), (Q(seen_at=None), "never" + WITH_OLD), default="old"),
        ),
        (Q(unchanged=False), "changed"),
        (is_noted, "confirmed"),
        (Q(seen_at=None), "never"),
        default="without_old",
    )
    found: QuerySet[Any] = _with_logins(members).alias(
        has_old=_has_device(_has_overlap()), unchanged=_has_device(Q()), standing=standing
    )
    return found


def _with_logins(members: Members) -> QuerySet[Any]:
    """Return *members* with *seen_at*, the time of the last login, and the alias *used_mark*, its password."""
    logins = LastLogin.objects.filter(key=OuterRef("device_key"))
    found: QuerySet[Any] = members.annotate(seen_at=Subquery(logins.values("at"))).alias(
        used_mark=Subquery(logins.values("current_mark"))
    )
    return found


def _is_noted() -> Q:
    """Return the condition that a login with the new password was noted. It may be NULL."""
    return Q(is_used=True) | (~Q(password_mark="") & Q(used_mark=F("password_mark")))


def _whether(condition: Q) -> models.Case:
    """Return *condition* as a value that is never NULL."""
    return models.Case(models.When(condition, then=True), default=False, output_field=models.BooleanField())


def _first(*cases: tuple[Q, Any], default: str) -> models.Case:
    """Return the value of the first of *cases* whose condition holds, or *default*."""
    whens = [
        models.When(condition, then=models.Value(value) if isinstance(value, str) else value)
        for condition, value in cases
    ]
    return models.Case(*whens, default=models.Value(default), output_field=models.CharField())


def open_members(members: Members) -> QuerySet[Any]:
    """Return those of *members* that wait for new credentials, or have not used theirs, with *seen_at*.

    Their *state* is `waiting`, `old`, `without_old` or `never`. Runs need no more of it, so it is not computed.
    """
    is_open = Q(changed_at=None) | Q(unchanged=True, is_noted=False)
    found: QuerySet[Any] = (
        _with_logins(members)
        .alias(unchanged=_has_device(Q()), is_noted=_whether(_is_noted()))
        .filter(is_open, end="")
    )
    return found


def _has_overlap() -> Q:
    """Return the condition of Credentials.has_overlap() for a query of devices."""
    now = timezone.now()
    is_current = Q(password_expires_at=None) | Q(password_expires_at__gt=now)
    return is_current & Q(previous_valid_until__gt=now) & ~Q(previous_password_hash="")


def _has_device(condition: Q) -> Any:
    """Return whether a member's device has the password that the rotation gave it, and meets *condition*."""
    found = Q(pk__in=[])
    for kind in registry:
        devices = kind.device_model._base_manager.filter(
            device_id=Substr(OuterRef("device_key"), len(kind.slug) + 2),
        )
        devices = devices.annotate(_mark=mark_in_sql(kind.device_model.HASH_COLUMN))
        devices = devices.filter(condition, _mark=OuterRef("password_mark"))
        found |= Q(kind=kind.slug) & Q(Exists(devices))
    return _whether(found)


def _by_kind(members: Sequence[RotationMember]) -> Iterator[tuple[Kind, list[RotationMember]]]:
    """Yield *members* by kind; those of a kind that the project has removed are left out."""
    for slug in dict.fromkeys(member.kind for member in members):
        if kind := registry.get(slug):
            yield kind, [member for member in members if member.kind == slug]


def _pages(members: Members) -> Iterator[tuple[Kind, list[RotationMember]]]:
    last = 0
    while some := list(members.filter(pk__gt=last, end="").order_by("pk")[:BATCH]):
        yield from _by_kind(some)
        last = some[-1].pk


def _locked(
    scope: Members, kind: Kind, members: Sequence[RotationMember]
) -> list[tuple[BaseDevice, RotationMember]]:
    """Return the devices of *members* that exist, locked, with their members, which are read again after that.

    One that is not in *scope* any more is left out: it may have been moved to a site that the user must not touch.
    """
    ids = [member.device_key.partition("/")[2] for member in members]
    rows = kind.device_model._base_manager.select_for_update().filter(device_id__in=ids).order_by("pk")
    devices = {kind.key(device.device_id): device for device in rows}
    again = scope.filter(pk__in=[member.pk for member in members], end="").order_by("pk")
    return [(devices[member.device_key], member) for member in again if member.device_key in devices]


def _unchanged(
    pairs: Sequence[tuple[BaseDevice, RotationMember]],
) -> list[tuple[BaseDevice, RotationMember]]:
    return [(device, member) for device, member in pairs if _has_issued(device, member)]


def _has_issued(device: BaseDevice, member: RotationMember) -> bool:
    """Return whether the password of *device* is the one that *member* issued; its API key may have changed since."""
    return bool(member.password_mark) and device.password_mark == member.password_mark


def _issue(rotation: Rotation, scope: Members, kind: Kind, members: list[RotationMember]) -> list[Issued]:
    """Change the devices of *members* and return their new credentials. The caller's transaction holds both."""
    changed: list[tuple[BaseDevice, RotationMember]] = []
    issued: list[Issued] = []
    with_key: list[BaseDevice] = []
    for device, member in _locked(scope, kind, members):
        gets_key = rotation.api_keys and _gets_key(rotation, device, member)
        if member.changed_at is None:
            member.replaced_expiry = device.password_expires_at
            password = _new_password(device, rotation.until)
        elif _has_issued(device, member):
            password = _replace_unused(device, member)
        else:
            continue
        if not _has_username(kind, device):
            continue
        credentials = {"mqtt_username": str(device.mqtt_username), "mqtt_password": password}
        if gets_key:
            credentials["api_key"] = _new_key(device, member)
            with_key.append(device)
        member.changed_at, member.password_mark = device.credentials_changed_at, device.password_mark
        changed.append((device, member))
        issued.append(entry(kind, device, credentials))
    devices = [device for device, _ in changed]
    _save(kind, devices)
    columns = ["changed_at", "password_mark", "replaced_expiry", "replaced_marks", "key_mark", "replaced_key"]
    RotationMember.objects.bulk_update([member for _, member in changed], columns)
    audit.record_many("password_rotated", _changes(kind, devices))
    record(kind, with_key, "api_key_rotated")
    return issued


def _new_password(device: BaseDevice, until: datetime | None) -> str:
    password = passwords.generate()
    device.set_hash(passwords.hash_generated(password), keep_previous_until=until)
    return password


def _gets_key(rotation: Rotation, device: BaseDevice, member: Any) -> bool:
    """Return whether the next file of *rotation* holds a new API key of *device*. *member* has its *seen_at*."""
    if member.changed_at is None:
        return True
    is_new = rotation.origin == Rotation.Origin.IMPORT and member.seen_at is None
    return is_new and _has_issued_key(device, member)


def _has_issued_key(device: BaseDevice, member: RotationMember) -> bool:
    return bool(member.key_mark) and mark_of(device.api_key or "") == member.key_mark


def _new_key(device: BaseDevice, member: RotationMember) -> str:
    """Give *device* a new API key; *member* keeps the digest of the one that is replaced."""
    key = secrets.token_hex(32)
    member.replaced_key, device.api_key = device.api_key or "", digest_api_key(key)
    member.key_mark = mark_of(device.api_key)
    return key


def _replace_unused(device: BaseDevice, member: RotationMember) -> str:
    """Give *device* another new password in place of one that it never used; its old password stays as it is.

    So does an expiry that a person set since.
    """
    kept, until, expiry = (
        device.previous_password_hash,
        device.previous_valid_until,
        device.password_expires_at,
    )
    member.replaced_marks = f"{member.password_mark} {member.replaced_marks}"[:170]
    password = _new_password(device, None)
    device.previous_password_hash, device.previous_valid_until = kept, until
    device.password_expires_at = expiry
    return password


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """Return the earlier of two expiries, of which None is never."""
    return min(filter(None, (one, other)), default=None)


def _changes(kind: Kind, devices: Sequence[BaseDevice]) -> Iterator[audit.Change]:
    """Yield, for the audit, the overlap of each of *devices* and the expiry of its password, if it has one."""
    for device in devices:
        expiry = device.password_expires_at
        after = provisioning.overlap(device) | ({"password_expires_at": expiry} if expiry else {})
        yield audit.Change(kind.key(device.device_id), None, after)


def _has_username(kind: Kind, device: BaseDevice) -> bool:
    """Return whether *device* has a username. One without gets that of its id, unless another identity has it."""
    if device.mqtt_username is not None:
        return True
    names = device._meta
    device.mqtt_username = mqtt_username(names.app_label, str(names.model_name), device.device_id)
    try:
        with transaction.atomic():
            device.save(update_fields=["mqtt_username"])
    except (IdentityTaken, IntegrityError):
        return False
    return True


def _save(kind: Kind, devices: Sequence[BaseDevice]) -> None:
    now = timezone.now()
    for device in devices:
        device.updated_at = now
    kind.device_model._base_manager.bulk_update(devices, WITHOUT_NAMES)


def _update(kind: Kind, devices: Sequence[BaseDevice], **values: Any) -> None:
    kind.device_model._base_manager.filter(pk__in=[device.pk for device in devices]).update(
        **values, updated_at=timezone.now()
    )


def _end(members: Sequence[RotationMember], end: str) -> None:
    RotationMember.objects.filter(pk__in=[member.pk for member in members]).update(end=end, replaced_key="")
