"""What happens when a device ends: its rows go in small portions, and with it all that its id could pass on.

A device is disabled before anything of it goes, and is itself the last to go: whoever is killed on the way begins
again, and nothing new comes in meanwhile. A device that SQL deleted leaves what its id could pass on; that goes when
another device begins under the id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, IntegrityError, InterfaceError, OperationalError, models, transaction
from django.db.models import functions
from django.db.models.deletion import Collector, get_candidate_relations_to_delete
from django.utils import timezone

from authsvc.models import Denial, Grant
from devicehub import commands, provisioning
from devicehub.db import batches
from devicehub.db.batches import Pace, Stopped, Where
from devicehub.db.portions import batched
from devicehub.db.statements import quoted
from devicehub.history import rollups
from devicehub.kinds import identifiers, topics
from devicehub.kinds.registry import Kind, registry
from devicehub.kinds.topics import MessageType
from devicehub.models import (
    NAMES,
    OPEN_STATES,
    BaseDevice,
    CountedRefusal,
    DeviceCommand,
    QuarantinedMessage,
    QuarantineUse,
    RemovalRequest,
    Rollup,
    new_names,
)
from devicehub.removal import retained

log = structlog.get_logger(__name__)

FEW = 10_000  # rows of a device that a web request deletes by itself


# Requests that were refused, with how: workers try them every few seconds, and say it once.
_refused: set[tuple[int, str]] = set()
# Whether the receivers of pre_delete are asked only, in a transaction that is rolled back.
_only_asking: ContextVar[bool] = ContextVar("only_asking", default=False)


class NothingThere(Exception):
    """There is no such device, and nothing is left of one."""


class EnabledAgain(Exception):
    """Somebody enabled the device while it was being removed: what is left of it stays."""


@dataclass
class _WhileDisabled(Pace):
    """Ends before the next batch, with EnabledAgain, when the device is active."""

    device: BaseDevice | None = None

    def check(self) -> None:
        super().check()
        if self.device is not None and _row(self.device).filter(is_active=True).exists():
            raise EnabledAgain


@dataclass
class Erased:
    """How much of a device was erased, or would be."""

    device: int = 0
    readings: int = 0
    messages: int = 0
    rollups: int = 0
    quarantine: int = 0
    commands: int = 0
    grants: int = 0
    denials: int = 0
    admin_log: int = 0  # what the admin wrote down of changes to it
    retained: int = 0  # topics that the broker is told to forget

    @property
    def is_empty(self) -> bool:
        return not any(value for name, value in asdict(self).items() if name != "retained")


def erase(kind: Kind, device_id: str, pace: Pace) -> Erased:
    """Remove everything of a device, history included, and of one that was deleted before what was left.

    Raises NothingThere, and what refuses the deletion, such as ProtectedError: then it is as it was. And
    batches.Stopped: then the device is disabled, and the rest goes the next time.
    """
    if preview(kind, device_id).is_empty:
        raise NothingThere(f"There is no {kind.key(device_id)}, and nothing is left of one")
    device = kind.device_model.objects.filter(device_id=device_id).first()
    done, key = Erased(), kind.key(device_id)
    if device is not None:
        ask(device)
    with transaction.atomic():  # also where it was disabled long ago: a retained command may be newer
        disable(device)
        done.retained = retained.forget(kind, [device_id])
    if device is not None:
        done.readings, done.messages, done.rollups = _drain_rows(kind, device, pace)
    for name, model, key_of in _HISTORY:
        gone = batches.drain(model._meta.db_table, f"{key_of} = %s", [key], pace)
        setattr(done, name, getattr(done, name) + gone)
    for name, rows in _unnamed(kind, device_id, device):
        setattr(done, name, getattr(done, name) + _drain_found(rows, pace))
    done.grants = _grants(kind, device_id).delete()[0]
    if device is not None:
        _count_deleted(done, kind, _delete_row(device))
        # A message that was on its way into the database may have ended there.
        for name, model, key_of in _HISTORY:
            if name == "quarantine":
                done.quarantine += batches.drain(model._meta.db_table, f"{key_of} = %s", [key], pace)
    RemovalRequest.objects.filter(device_key=key).delete()
    QuarantineUse.objects.filter(owner=key).delete()
    QuarantineUse.forget("")  # what was on unknown topics counted as of no device
    return done


def preview(kind: Kind, device_id: str) -> Erased:
    """What erase() would remove; it counts, and changes nothing."""
    key = kind.key(device_id)
    found = Erased(retained=len(MessageType), grants=_grants(kind, device_id).count())
    for name, model, key_of in _HISTORY:
        count = model._default_manager.filter(**{key_of: key}).count()
        setattr(found, name, getattr(found, name) + count)
    device = kind.device_model.objects.filter(device_id=device_id).first()
    if device is not None:
        found.device = 1
        found.readings = kind.reading_model.objects.filter(device=device).count()
        found.messages = kind.message_model.objects.filter(device=device).count()
    for name, rows in _unnamed(kind, device_id, device):
        setattr(found, name, getattr(found, name) + rows.count())
    return found


# The tables that know a device by its key, with the column.
_HISTORY: tuple[tuple[str, type[models.Model], str], ...] = (
    ("rollups", Rollup, "device_key"),
    ("quarantine", QuarantinedMessage, "device_key"),
    ("quarantine", CountedRefusal, "device_key"),
    ("commands", DeviceCommand, "device_key"),
    ("denials", Denial, "principal"),
)


def _unnamed(kind: Kind, device_id: str, device: BaseDevice | None) -> list[tuple[str, models.QuerySet[Any]]]:
    """The rows of a device that do not hold its key, by what they count as; none that _HISTORY finds."""
    meta, key = kind.device_model._meta, kind.key(device_id)
    usernames = {identifiers.mqtt_username(meta.app_label, str(meta.model_name), device_id)}
    client_ids = {device_id, *usernames}
    if device is not None:
        usernames.update(filter(None, [device.mqtt_username]))
        client_ids.update(filter(None, [device.mqtt_username, device.mqtt_client_id]))
    # A client id counts where no username says that it was another one who used it.
    own = models.Q(username__in=usernames) | models.Q(username="", principal="", client_id__in=client_ids)
    found: list[tuple[str, models.QuerySet[Any]]] = [
        ("denials", Denial.objects.filter(own).exclude(principal=key)),
    ]
    before = topics.prefix(kind, device_id)
    if before:
        # Not LIKE, which ignores case on SQLite; a topic may also end with the device id.
        head = functions.Substr(functions.Concat("topic", models.Value("/")), 1, len(before))
        strange = QuarantinedMessage.objects.filter(reason="unknown_topic").exclude(device_key=key)
        found.append(("quarantine", strange.annotate(head=head).filter(head=before)))
    if apps.is_installed("django.contrib.admin"):
        found.append(("admin_log", _lines_of_the_admin(kind, device_id, device, usernames)))
    return found


def _lines_of_the_admin(
    kind: Kind, device_id: str, device: BaseDevice | None, usernames: Iterable[str]
) -> models.QuerySet[Any]:
    """What the admin wrote down of the device, and of its grants, commands, messages and denials, which it names."""
    meta, entries = kind.device_model._meta, apps.get_model("admin", "LogEntry")._default_manager
    names = "|".join(map(re.escape, filter(None, [kind.key(device_id), topics.prefix(kind, device_id)[:-1]])))
    named = re.compile(rf"(?<![A-Za-z0-9_-])(?:{names})(?![A-Za-z0-9_:-])")
    lines = entries.filter(object_repr__contains=device_id).exclude(
        content_type__app_label="authsvc", content_type__model="denial"
    )
    wanted = [pk for pk, text in lines.values_list("pk", "object_repr") if named.search(text)]
    # A denial of another device may name its topic, and stays. Not LIKE, which ignores case on SQLite.
    denials = entries.filter(content_type__app_label="authsvc", content_type__model="denial")
    beginnings = tuple(f"{username} " for username in usernames)
    wanted += [pk for pk, text in denials.values_list("pk", "object_repr") if text.startswith(beginnings)]
    own = models.Q(pk__in=wanted)
    if device is not None:
        own |= models.Q(
            object_id=str(device.pk),
            content_type__app_label=meta.app_label,
            content_type__model=meta.model_name,
        )
    return entries.filter(own)


def _drain_found(rows: models.QuerySet[Any], pace: Pace) -> int:
    """Delete *rows* in small portions, as batches.drain() does; how many."""
    total = 0
    for pks in batched(list(rows.order_by().values_list("pk", flat=True)), min(pace.rows, 500)):
        marks = ", ".join(["%s"] * len(pks))
        table = quoted(rows.model._meta.db_table)
        total += pace.execute(f"DELETE FROM {table} WHERE id IN ({marks})", pks)
    return total


def disable(device: BaseDevice | None) -> None:
    """No question about it is allowed from now on, and nothing it sends is stored."""
    if device is not None and device.is_active:
        device.is_active = False
        device.save(update_fields=["is_active", "updated_at"])


def row_counts(device: BaseDevice) -> dict[str, str]:
    """How many readings and messages a device has, in words; counts no further than has_many_rows()."""
    kind = registry.of(device)
    found = {}
    if kind is not None:
        for name, model in (("readings", kind.reading_model), ("messages", kind.message_model)):
            count = model.objects.filter(device=device).order_by()[: FEW + 1].count()
            found[name] = str(count) if count <= FEW else f"more than {FEW:,}"
    return found


def has_many_rows(device: BaseDevice) -> bool:
    """Whether deleting it takes longer than a web request should. Counts no further than it must."""
    kind = registry.of(device)
    rows = (kind.reading_model, kind.message_model) if kind else ()
    return any(model.objects.filter(device=device).order_by()[FEW : FEW + 1].exists() for model in rows)


def request(device: BaseDevice) -> None:
    """Disable *device* and have it removed by work_off(), in small portions. Raises what refuses that."""
    kind = registry.of(device)
    if kind is None:
        raise ValueError(f"{type(device).__name__} is no registered kind of device")
    ask(device)
    with transaction.atomic():
        disable(device)
        RemovalRequest.objects.get_or_create(
            device_key=kind.key(device.device_id), defaults={"requested_at": timezone.now()}
        )


def work_off(pace: Pace | None = None) -> int:
    """Delete the devices whose removal was requested; how many. Raises batches.Stopped.

    One that cannot be deleted stays disabled with its request and is tried again the next time, after the others.
    """
    pace, count = pace or Pace(), 0
    for waiting in RemovalRequest.objects.all():
        try:
            count += _remove(waiting, pace)
        except (Stopped, OperationalError, InterfaceError):  # the others would fare no better
            raise
        except EnabledAgain:
            log.warning("removal.enabled_again", device=waiting.device_key)  # somebody changed their mind
        except Exception as error:  # a project's models and receivers may refuse with anything
            refusal = waiting.pk, type(error).__name__
            if refusal not in _refused:
                _refused.add(refusal)
                log.exception("removal.refused", device=waiting.device_key)
            continue
        RemovalRequest.objects.filter(pk=waiting.pk).delete()
    return count


def _remove(waiting: RemovalRequest, pace: Pace) -> int:
    """1 if the device was there and is gone. Raises EnabledAgain."""
    slug, _, device_id = waiting.device_key.partition("/")
    kind = registry.get(slug)
    device = kind.device_model.objects.filter(device_id=device_id).first() if kind else None
    if kind is None or device is None or not RemovalRequest.objects.filter(pk=waiting.pk).exists():
        return 0  # the device is gone, or another one began under its id since the requests were read
    if device.is_active:
        raise EnabledAgain
    ask(device)
    watchful = _WhileDisabled(pace.rows, pace.stop, pace.report, device=device)
    _drain_rows(kind, device, watchful)
    return _delete_row(device, only_disabled=True).get(device._meta.label, 0)


def _drain_rows(kind: Kind, device: BaseDevice, pace: Pace) -> tuple[int, int, int]:
    """Take away readings, messages and rollups in small portions; how many of each."""
    of, portioned = Where("device_id = %s", [device.pk]), _portioned(device)
    readings, messages = kind.reading_model, kind.message_model
    return (
        batches.delete_by_time(readings._meta.db_table, "timestamp", of, pace)
        if readings in portioned
        else 0,
        batches.drain(messages._meta.db_table, *of, pace) if messages in portioned else 0,
        batches.drain(Rollup._meta.db_table, "device_key = %s", [kind.key(device.device_id)], pace),
    )


def _delete_row(device: BaseDevice, *, only_disabled: bool = False) -> dict[str, int]:
    """The device and the few rows that came meanwhile, in one transaction; how many by model label."""
    for attempt in (1, 2, 3):
        try:
            with transaction.atomic():
                if only_disabled:
                    _hold_disabled(device)
                return device.delete()[1]
        except (models.ProtectedError, models.RestrictedError):
            raise
        except IntegrityError:  # ingest stored a message between the rows and the device: they go again
            if attempt == 3:
                raise
    raise AssertionError("unreachable")


def _hold_disabled(device: BaseDevice) -> None:
    """Nobody enables it until this transaction ends. Raises EnabledAgain, also after waiting for who is doing so."""
    kind = registry.of(device)
    if kind is not None:
        # Before the row, as in every other deletion: two of them must not wait for each other.
        rollups.lock(kind)
    row = _row(device).select_for_update().first()
    if row is not None and row.is_active:
        raise EnabledAgain


def _count_deleted(done: Erased, kind: Kind, by_model: dict[str, int]) -> None:
    done.device = by_model.get(kind.device_model._meta.label, 0)
    done.readings += by_model.get(kind.reading_model._meta.label, 0)
    done.messages += by_model.get(kind.message_model._meta.label, 0)


def _row(device: BaseDevice) -> models.QuerySet[BaseDevice]:
    return type(device)._base_manager.filter(pk=device.pk)


def _portioned(device: BaseDevice) -> list[type[models.Model]]:
    """The models whose rows of *device* go by SQL. Where a project's rows refer to them Django deletes them."""
    kind = registry.of(device)
    rows: tuple[type[models.Model], ...] = (kind.reading_model, kind.message_model) if kind else ()
    return [model for model in rows if not _is_referred_to(model, device)]


def _is_referred_to(model: type[models.Model], device: BaseDevice) -> bool:
    related: Any
    for related in get_candidate_relations_to_delete(model._meta):
        of_device = {f"{related.field.name}__device": device}
        if related.related_model._base_manager.filter(**of_device).exists():
            return True
    return False


class _Related(Collector):
    """What Django would delete with a device, without the rows that go in portions: there may be millions."""

    portioned: list[type[models.Model]]

    def can_fast_delete(self, objs: Any, from_field: Any = None) -> bool:
        if from_field is not None and from_field.model in self.portioned:
            return True
        return bool(super().can_fast_delete(objs, from_field))


def collect(device: BaseDevice) -> _Related:
    """What goes with *device*. Raises ProtectedError and RestrictedError where a project's rows keep it."""
    related = _Related(using=device._state.db or "default", origin=device)
    related.portioned = _portioned(device)
    related.collect([device])
    return related


def ask(device: BaseDevice) -> None:
    """Raise what would refuse to delete *device*, while it still has everything.

    The receivers of pre_delete are called in a transaction that is rolled back, and again when it is deleted.
    """
    asking = _only_asking.set(True)
    try:
        with transaction.atomic():
            for model, instance in collect(device).instances_with_model():
                models.signals.pre_delete.send(model, instance=instance, using="default", origin=device)
            transaction.set_rollback(True)
    finally:
        _only_asking.reset(asking)


def _grants(kind: Kind, device_id: str) -> models.QuerySet[Grant]:
    return _grants_of([kind.key(device_id)])


def _grants_of(keys: Iterable[str]) -> models.QuerySet[Grant]:
    return Grant.objects.filter(subject__in=[f"key:{key}" for key in keys])


def _left_over(keys: list[str]) -> set[str]:
    """Return those of *keys* that something hangs on which a device would inherit. One query."""
    rows: tuple[models.QuerySet[Any], ...] = (
        DeviceCommand.objects.filter(device_key__in=keys, state__in=OPEN_STATES),
        RemovalRequest.objects.filter(device_key__in=keys),
        Rollup.objects.filter(device_key__in=keys),
    )
    found = _grants_of(keys).order_by().values_list("subject")
    found = found.union(*(each.order_by().values_list("device_key") for each in rows))
    return {text.removeprefix("key:") for (text,) in found}


def _disinherit(kind: Kind, device_ids: list[str]) -> None:
    """Delete what ended devices would pass on by their ids, and have the broker clear what it retains of them."""
    keys = [kind.key(device_id) for device_id in device_ids]
    Rollup.objects.filter(device_key__in=keys).delete()
    RemovalRequest.objects.filter(device_key__in=keys).delete()
    _grants_of(keys).delete()
    commands.forget_open(keys)
    retained.forget(kind, device_ids)


class Removal:
    """The watcher of the models: whatever way a device begins or ends in the ORM."""

    def named(self, model: type[BaseDevice], device_ids: set[str], names: set[str], using: str) -> None:
        kind = registry.of(model)
        if kind is None or using != DEFAULT_DB_ALIAS:  # a copy elsewhere is not a device that may log in
            return
        if names:
            provisioning.refuse_claimed(names)
        keys = {kind.key(device_id): device_id for device_id in device_ids}
        found = _left_over(list(keys)) if keys else set()
        if not found:
            return  # nothing is written: a deletion of no grant would still raise the policy revision
        with transaction.atomic():
            rollups.lock(kind)
            _disinherit(kind, [keys[key] for key in found])
        for key in sorted(found):
            log.warning("removal.left_over", device=key)

    def ended(self, model: type[BaseDevice], device_ids: Iterable[str]) -> None:
        kind = registry.of(model)
        if kind is not None:
            for some in batched(device_ids, 100):
                retained.forget(kind, some)

    def asked(self, device: BaseDevice) -> None:
        if registry.of(device) is not None and _row(device).exists():
            ask(device)

    def emptied(self, device: BaseDevice) -> None:
        """Disable it first, so that it stays out when this is killed."""
        kind = registry.of(device)
        now = _row(device).first()  # *device* may be as it was a while ago
        if kind is not None and now is not None:
            disable(now)
            _drain_rows(kind, now, Pace())


def before_delete(sender: type[BaseDevice], instance: BaseDevice, **_: Any) -> None:
    """In the transaction that deletes a device: what else must go, so that its id inherits nothing."""
    kind = registry.of(sender)
    if kind is None or _only_asking.get():
        return
    rollups.lock(kind)  # whoever computes rollups of it now finds the device gone
    # By primary key: an instance of a device that is gone must not touch another one of the same id. Locked: whoever
    # stores a message of it is waited for, or waits, and then finds the device gone and not its own row in the way.
    device_id = _row(instance).select_for_update().values_list("device_id", flat=True).first()
    if device_id is None:
        return
    _disinherit(kind, [device_id])


def before_save(
    sender: type[models.Model],
    instance: models.Model,
    raw: bool,
    using: str,
    update_fields: Collection[str] | None,
    **_: Any,
) -> None:
    """Tell of the names that a device gets, before the save that gives them.

    Not for a fixture (*raw*): it restores devices together with their grants, in any order.
    """
    if raw or not isinstance(instance, BaseDevice):
        return
    kind = registry.of(instance)
    if kind is not None and (update_fields is None or not set(NAMES).isdisjoint(update_fields)):
        Removal().named(kind.device_model, *new_names(kind.device_model, [instance], using), using)


def watch() -> None:
    """Listen to every kind that exists. By model: a receiver for all would make Django load all rows it deletes."""
    models.signals.pre_save.connect(before_save, dispatch_uid="devicehub.removal.before_save")
    for kind in registry:
        models.signals.pre_delete.connect(
            before_delete, sender=kind.device_model, dispatch_uid=f"devicehub.removal.{kind.slug}"
        )
