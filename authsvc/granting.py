"""Actions on grants: create, change and delete them, each with its row in the audit.

A subject that names nothing is refused here, and in forms. A save of the model checks only its form: fixtures and
restores write grants before the devices that they name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from authsvc import audit
from authsvc.conf import settings
from authsvc.core.access import ACCOUNT
from authsvc.core.grants import ActionSet
from authsvc.models import Account, Grant, InvalidGrant, LastLogin

FIELDS = ("subject", "effect", "actions", "filter", "note", "valid_from", "valid_until")

# Takes a subject; returns a sentence that says why it names nothing, an empty text if it names something, and None
# for a subject of which it knows nothing.
SubjectCheck = Callable[[str], str | None]
_checks: list[SubjectCheck] = []


def register_subject_check(check: SubjectCheck) -> None:
    """Register *check*, which knows subjects of another app, such as its devices and groups."""
    if check not in _checks:
        _checks.append(check)


def subject_problem(subject: str) -> str:
    """Return a sentence that says why *subject* names nothing; empty if it names something.

    A project with a directory of its own may name its principals, which only that directory knows.
    """
    if subject == "everyone":
        return ""
    if subject.startswith(f"key:{ACCOUNT}/"):
        name = subject.partition("/")[2]
        return "" if Account.objects.filter(username=name).exists() else f"There is no account {name}."
    for check in _checks:
        if (problem := check(subject)) is not None:
            return problem
    if any(not path.startswith(("authsvc.", "devicehub.")) for path in settings.directories):
        return ""
    return f"{subject} names nothing that exists here."


def check(grant: Grant) -> None:
    """Raise ValidationError, by field, if *grant* may not be saved by a person: its subject must exist, too."""
    grant.full_clean()
    if problem := subject_problem(grant.subject):
        raise ValidationError({"subject": InvalidGrant(problem, code="unknown_subject")})


@transaction.atomic
def create_grant(
    subject: str,
    actions: Iterable[str],
    topic_filter: str,
    *,
    effect: str = Grant.Effect.ALLOW,
    note: str = "",
    valid_from: datetime | None = None,
    valid_until: datetime | None = None,
) -> Grant:
    """Create and return a grant. *actions* are some of publish, subscribe and receive. Raise ValidationError."""
    grant = Grant(
        subject=subject,
        effect=effect,
        actions=actions_of(actions).value,
        filter=topic_filter,
        note=note,
        valid_from=valid_from,
        valid_until=valid_until,
    )
    check(grant)
    grant.save(force_insert=True)
    audit.record("grant_created", key(grant), after=_described(grant))
    return grant


@transaction.atomic
def change_grant(grant: Grant, **changes: Any) -> Grant:
    """Change *changes*, some of FIELDS, of *grant* and return it. Raise ValidationError."""
    stored = Grant.objects.select_for_update().get(pk=grant.pk)
    before = _described(stored)
    for name, value in changes.items():
        if name not in FIELDS:
            raise ValueError(f"{name!r} is not a field of a grant that can be changed")
        is_list = name == "actions" and not isinstance(value, ActionSet)
        setattr(stored, name, actions_of(value).value if is_list else value)
    after = _described(stored)
    changed = {name for name in FIELDS if before[name] != after[name]}
    if not changed:
        return stored
    check(stored)
    stored.save(update_fields=sorted(changed))
    audit.record(
        "grant_changed",
        key(stored),
        before={name: before[name] for name in sorted(changed)},
        after={name: after[name] for name in sorted(changed)},
    )
    return stored


@transaction.atomic
def delete_grant(grant: Grant) -> None:
    """Delete *grant*; do nothing if it is gone already."""
    stored = Grant.objects.select_for_update().filter(pk=grant.pk).first()
    if stored is None:
        return
    audit.record("grant_deleted", key(stored), before=_described(stored))
    stored.delete()


def delete_grants_of(subjects: Iterable[str]) -> int:
    """Delete the grants of *subjects* and return how many; for an identity or a group that is deleted."""
    found = list(Grant.objects.filter(subject__in=list(subjects)))
    for grant in found:
        delete_grant(grant)
    return len(found)


def after_account_delete(instance: Account, **_: Any) -> None:
    """Delete the grants and the last login of a deleted account, so that another one of its name has neither."""
    delete_grants_of([f"key:{instance.key}"])
    LastLogin.objects.filter(key=instance.key).delete()


def actions_of(actions: Iterable[str]) -> ActionSet:
    """Return *actions*, words or the text of a column, as a set. Raise ValidationError for none or another word."""
    try:
        return ActionSet(actions) if isinstance(actions, str) else ActionSet.of(actions)
    except ValueError as error:
        raise ValidationError({"actions": "Choose publish, subscribe or receive."}) from error


def key(grant: Grant) -> str:
    """Return the name of *grant* in the audit, and in the rule of a decision with a space."""
    return f"grant/{grant.pk}"


def _described(grant: Grant) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value := getattr(grant, name), datetime) else value
        for name in FIELDS
    }
