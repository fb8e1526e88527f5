"""The steps of a command. Each is one conditional UPDATE, so of two processes that try it, one succeeds.

A process claims a command before it publishes it, for the time of a lease. The claim increments *attempts*, and
every later step of that attempt carries its number. A process that lost the lease can change nothing more, except
that an ack is always recorded, because it is true.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, F, Q, QuerySet, Value, When

from authsvc.text import make_storable
from devicehub.backoff import Backoff
from devicehub.db import clock
from devicehub.models import OPEN_STATES, CommandState, DeviceCommand

LEASE = timedelta(seconds=30)  # A lease must be longer than connecting and publishing take together.
RETRY = Backoff((1, 2, 5, 10, 20, 30))  # seconds between attempts
LONGEST_ERROR = 500  # A longer error is cut to this many characters.
SENDABLE = (CommandState.QUEUED, CommandState.SENT)


def due(now: datetime, most: int) -> list[DeviceCommand]:
    """Return at most *most* commands that are to be sent or to expire, by one query of the index of open commands.

    Of commands that became due together, such as when their device came back, the one that was queued first is first.
    """
    return list(DeviceCommand.objects.filter(due_at__lte=now).order_by("due_at", "queued_at")[:most])


def amend_times(now: datetime) -> None:
    """Correct times that a clock ahead of ours has written, so that no command waits for them.

    The next attempt becomes due now, and leases of that time end now. Deadlines stay: the wrong clock may be ours,
    and behind, and then commands would expire unsent.
    """
    beyond = now + LEASE + clock.AHEAD
    waiting = DeviceCommand.objects.filter(state__in=OPEN_STATES)
    waiting.filter(leased_until__gt=beyond).update(leased_until=now)
    # A command of QoS 0 that was sent is due at its deadline: it must not be sent again.
    attempts = Q(state=CommandState.QUEUED) | Q(state=CommandState.SENT, due_at__lt=F("deadline"))
    waiting.filter(attempts, due_at__gt=beyond).update(due_at=now)


def claim(command: DeviceCommand, now: datetime) -> bool:
    """Claim *command*; return whether this process, and no other, may publish it now."""
    until = now + LEASE
    claimed = _free(command, now).filter(state__in=SENDABLE, attempts=command.attempts)
    if not claimed.update(attempts=F("attempts") + 1, leased_until=until, due_at=until):
        return False
    command.attempts += 1
    return True


def record_sent(command: DeviceCommand, state: CommandState, sent_at: datetime, now: datetime) -> bool:
    """Record that the broker acknowledged it (ACKNOWLEDGED) or that it was sent with QoS 0 (SENT).

    Return False if that was recorded before. If the reply came before the ack, the state stays.
    """
    times: dict[str, datetime] = {"sent_at": sent_at}
    if state == CommandState.ACKNOWLEDGED:
        times["acknowledged_at"] = now
        new = DeviceCommand.objects.filter(pk=command.pk, acknowledged_at=None)
    else:
        # An earlier attempt may have set sent_at without success: then the number of this attempt decides.
        ours = Q(sent_at=None) | Q(state__in=SENDABLE, attempts=command.attempts)
        new = DeviceCommand.objects.filter(ours, pk=command.pk)
    is_open = Q(state__in=SENDABLE)
    changed = new.update(
        **times,
        leased_until=None,
        error=Case(When(is_open, then=Value("")), default=F("error")),
        due_at=Case(When(is_open, then=F("deadline")), default=F("due_at")),
        state=Case(When(is_open, then=Value(state.value)), default=F("state")),
    )
    return bool(changed)


def retry(command: DeviceCommand, now: datetime, error: str, *, sent_at: datetime | None = None) -> None:
    """Record that the claimed attempt failed, and put off the next one. With *sent_at* it was sent without an ack."""
    changes: dict[str, Any] = {} if sent_at is None else {"state": CommandState.SENT, "sent_at": sent_at}
    _put_off(command, error, now + timedelta(seconds=RETRY.after(command.attempts)), **changes)


def postpone(command: DeviceCommand, error: str, until: datetime) -> None:
    """Put the next attempt off without counting a failure, because the broker is away."""
    _put_off(command, error, until)


def _put_off(command: DeviceCommand, error: str, until: datetime, **changes: Any) -> None:
    # A lease that had ended when *command* was read stays: its process may have published before it ended.
    DeviceCommand.objects.filter(pk=command.pk, state__in=SENDABLE, attempts=command.attempts).update(
        error=make_storable(error, LONGEST_ERROR),
        leased_until=command.leased_until,
        due_at=min(until, command.deadline),
        **changes,
    )


def hasten(device_keys: Collection[str], now: datetime) -> None:
    """Make waiting commands of these devices due now, since the devices were heard; leave leased ones alone."""
    free = Q(leased_until=None) | Q(leased_until__lte=now)
    waiting = DeviceCommand.objects.filter(
        free, device_key__in=device_keys, due_at__gt=now, state=CommandState.QUEUED
    )
    found = list(waiting.select_for_update(skip_locked=True).values_list("pk", flat=True))
    if found:
        DeviceCommand.objects.filter(pk__in=found).update(due_at=now)


def fail(command: DeviceCommand, now: datetime, error: str) -> None:
    """End *command* as failed: it cannot be sent, and a retry would not help."""
    DeviceCommand.objects.filter(pk=command.pk, state__in=SENDABLE, attempts=command.attempts).update(
        state=CommandState.FAILED,
        error=make_storable(error, LONGEST_ERROR),
        ended_at=now,
        due_at=None,
        leased_until=None,
    )


def expire(command: DeviceCommand, now: datetime) -> None:
    """End *command* as expired: its deadline has passed without an answer."""
    why = "it was not sent" if command.sent_at is None else "no answer came"
    if command.sent_at is None and command.leased_until is not None:
        why = "the process that was sending it ended, and no answer came"
    before = f": {command.error}" if command.error else ""
    _free(command, now).filter(state__in=OPEN_STATES, deadline__lte=now).update(
        state=CommandState.EXPIRED,
        error=make_storable(f"{why} before the deadline{before}", LONGEST_ERROR),
        ended_at=now,
        due_at=None,
        leased_until=None,
    )


def cancel(command: DeviceCommand, now: datetime) -> bool:
    """Cancel *command*; return False if it is not queued, is being published, or may have been by an ended process."""
    return bool(
        DeviceCommand.objects.filter(pk=command.pk, state=CommandState.QUEUED, leased_until=None).update(
            state=CommandState.CANCELLED, ended_at=now, due_at=None, leased_until=None
        )
    )


def _free(command: DeviceCommand, now: datetime) -> QuerySet[DeviceCommand]:
    """Return a query set of *command*, empty while a process holds a lease on it."""
    return DeviceCommand.objects.filter(Q(leased_until=None) | Q(leased_until__lte=now), pk=command.pk)
