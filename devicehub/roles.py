"""Three ready groups of users, and the assignment of one of them. Each migrate sets their permissions again.

Other cuts are groups of one's own.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import connections, transaction
from django.db.models import Q, QuerySet

from devicehub.kinds.registry import registry
from devicehub.models import SiteScope

VIEWER, OPERATOR, ADMINISTRATOR = "DeviceHub viewer", "DeviceHub operator", "DeviceHub administrator"

ALL_ROLES = (VIEWER, OPERATOR, ADMINISTRATOR)

# The models that every role may see, beside those of each kind.
SEEN = {
    "authsvc": ("account", "broker", "brokeruse", "denial", "grant", "lastlogin"),
    "devicehub": (
        *("countedrefusal", "devicecommand", "devicegroup", "deviceoptions", "devicetag", "groupmember"),
        *("ingestworker", "quarantinedmessage", "removalrequest", "retainedtopic"),
    ),
}
ALL = ("add", "change", "delete")
# Beside adding, changing and deleting devices. Records are evidence: to change one is to dismiss or to replay it.
OPERATED = {
    ("authsvc", "account"): ALL,
    ("authsvc", "auditentry"): ("view",),
    ("authsvc", "denial"): ("change",),
    ("authsvc", "grant"): ALL,
    ("devicehub", "devicecommand"): ("add", "change"),
    ("devicehub", "devicegroup"): ALL,
    ("devicehub", "deviceoptions"): ALL,
    ("devicehub", "devicetag"): ALL,
    ("devicehub", "groupmember"): ALL,
    ("devicehub", "quarantinedmessage"): ("change",),
}
ADMINISTERED = {
    ("auth", "group"): ("view", *ALL),
    ("auth", "user"): ("view", *ALL),
    ("authsvc", "auditretention"): ("view", "change"),
    ("authsvc", "broker"): ALL,
    ("devicehub", "apikey"): ("view", "delete"),
    ("devicehub", "sitescope"): ("view", *ALL),
}


def _permissions(model: tuple[str, str], actions: tuple[str, ...]) -> Q:
    label, name = model
    return Q(content_type__app_label=label, codename__in=[f"{action}_{name}" for action in actions])


def _viewed() -> Q:
    found = Q(pk__in=[])
    for label, names in SEEN.items():
        for name in names:
            found |= _permissions((label, name), ("view",))
    for kind in registry:
        for model in (kind.device_model, kind.message_model, *kind.value_models, *kind.pages.admin):
            found |= _permissions((model._meta.app_label, str(model._meta.model_name)), ("view",))
    return found


def _operated() -> Q:
    found = _viewed()
    for model, actions in OPERATED.items():
        found |= _permissions(model, actions)
    for kind in registry:
        meta = kind.device_model._meta
        found |= _permissions((meta.app_label, str(meta.model_name)), ALL)
    return found


def _administered() -> Q:
    found = _operated()
    for model, actions in ADMINISTERED.items():
        found |= _permissions(model, actions)
    return found


def install(using: str = "default", **_: Any) -> None:
    """Make the groups and set their permissions. It runs after every migrate.

    Django makes permissions app by app, so those of a later app are made here first.
    """
    if Group._meta.db_table not in connections[using].introspection.table_names():
        return  # Migrated back to before it existed.
    labels = {"auth", *SEEN, *(kind.device_model._meta.app_label for kind in registry)}
    for label in sorted(labels):
        create_permissions(apps.get_app_config(label), verbosity=0, using=using)
    for name, chosen in ((VIEWER, _viewed()), (OPERATOR, _operated()), (ADMINISTRATOR, _administered())):
        _set(name, set(Permission.objects.using(using).filter(chosen).values_list("pk", flat=True)), using)


def _set(name: str, wanted: set[int], using: str) -> None:
    """Give the role *name* exactly the permissions *wanted*. Bulk writes send no signal, which would record each."""
    groups, links = Group.objects.using(using), Group.permissions.through._base_manager.using(using)
    groups.bulk_create([Group(name=name)], ignore_conflicts=True)
    group = groups.get(name=name)
    existing = set(links.filter(group_id=group.pk).values_list("permission_id", flat=True))
    links.filter(group_id=group.pk, permission_id__in=existing - wanted).delete()
    links.bulk_create(
        [Group.permissions.through(group_id=group.pk, permission_id=pk) for pk in sorted(wanted - existing)]
    )


def of(user: Any) -> str:
    """Return the strongest role of *user*, or ""."""
    if user.pk is None:
        return ""
    names = {group.name for group in user.groups.all()}
    return next((name for name in reversed(ALL_ROLES) if name in names), "")


def ready(user: Any) -> QuerySet[Group]:
    """Return those of the ready groups that *user* is in."""
    found: QuerySet[Group] = user.groups.filter(name__in=ALL_ROLES)
    return found


@transaction.atomic
def assign(user: Any, role: str, sites: list[str] | None) -> None:
    """Give *user* the *role*, or none for "", and limit them to *sites*, or not for None."""
    user.groups.remove(*ready(user).exclude(name=role))
    if role:
        user.groups.add(Group.objects.get(name=role))
    if sites is None:
        SiteScope.objects.filter(user=user).delete()
    else:
        SiteScope.objects.update_or_create(user=user, defaults={"sites": sites})
