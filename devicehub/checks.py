"""System checks: wrong configuration is an error with an id and a hint, not a surprise at the first login."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's
from django.db import connection, router
from django.db.models import Model
from django.urls import NoReverseMatch, reverse

from authsvc.core import topics as filters
from authsvc.models import Account, AuditEntry, AuditRetention
from devicehub import provisioning, second_factor
from devicehub.conf import settings
from devicehub.kinds import topics
from devicehub.kinds.registry import registry
from devicehub.mqtt import BrokerAddress, InvalidAddress
from devicehub.retention import pruning


@register()
def check_topics(**_: Any) -> list[CheckMessage]:
    """Check the prefix, the templates, and that no topic belongs to two kinds (devicehub.E001 to E003)."""
    errors: list[CheckMessage] = []
    prefix = settings.topic_prefix
    if not filters.is_topic(prefix) or "/" in prefix or prefix.startswith("$"):
        errors.append(
            Error(
                f"DEVICEHUB_TOPIC_PREFIX is {prefix!r}, which is not one plain topic level.",
                hint="Use a word such as things: no slash, no + # and no leading $.",
                id="devicehub.E001",
            )
        )
    broken = {kind.slug for kind in registry if topics.template_problem(kind.topic_template)}
    errors += [
        Error(
            f"{kind.slug}: {topics.template_problem(kind.topic_template)}",
            hint="Write Meta.topic_template as {prefix}/{type_name}/{device_id}/{message_type}.",
            id="devicehub.E002",
        )
        for kind in registry
        if kind.slug in broken
    ]
    sound = [(kind, text) for kind, text in topics.all_filters() if kind.slug not in broken]
    errors += [
        Error(
            f"The topics of {one.slug} and {other.slug} overlap: {left} and {right}.",
            hint="Put {type_name} or another fixed word into one Meta.topic_template.",
            id="devicehub.E003",
        )
        for (one, left), (other, right) in combinations(sound, 2)
        if filters.overlaps(left, right)
    ]
    return errors


@register()
def check_logins(**_: Any) -> list[CheckMessage]:
    """Check that the sign-in pages are protected from guessing (devicehub.W018)."""
    if not apps.is_installed("django.contrib.auth"):
        return []
    if (
        apps.is_installed("axes")
        and "devicehub.logins.Backend" in django_settings.AUTHENTICATION_BACKENDS
        and getattr(django_settings, "AXES_HANDLER", "") == "devicehub.logins.Handler"
        and "axes.middleware.AxesMiddleware" in django_settings.MIDDLEWARE
    ):
        return []
    hint = "Set up django-axes as docs/how-to/include-in-your-project.md shows, or silence this check."
    return [Warning("Passwords may be guessed at the sign-in pages.", hint=hint, id="devicehub.W018")]


@register()
def check_broker_address(**_: Any) -> list[CheckMessage]:
    """Check that MQTT_URL and DEVICEHUB_MQTT_VERSION can be used (devicehub.E004 and E005)."""
    errors: list[CheckMessage] = []
    try:
        BrokerAddress.parse(settings.mqtt_url)
    except InvalidAddress as error:
        errors.append(
            Error(str(error), hint="Write MQTT_URL as mqtt://user:password@host:1883.", id="devicehub.E004")
        )
    if settings.mqtt_version not in ("5", "3.1.1"):
        errors.append(
            Error(
                f"DEVICEHUB_MQTT_VERSION is {settings.mqtt_version!r}.",
                hint="It is 5 or 3.1.1 (amqtt 0.12 and RabbitMQ 3.10 speak only 3.1.1).",
                id="devicehub.E005",
            )
        )
    return errors


@register()
def check_device_address(**_: Any) -> list[CheckMessage]:
    """Check that DEVICEHUB_DEVICE_URL is an address without a login, or empty (devicehub.E022)."""
    try:
        address = BrokerAddress.parse(settings.device_url, "DEVICEHUB_DEVICE_URL")
        problem = "DEVICEHUB_DEVICE_URL has a user name or a password" if address.username else ""
    except InvalidAddress as error:
        problem = str(error)
    if not problem or not settings.device_url:
        return []
    hint = "Write the address that devices use, as mqtts://mqtt.example.org:8883, or leave it empty."
    return [Error(problem, hint=hint, id="devicehub.E022")]


@register()
def check_group(**_: Any) -> list[CheckMessage]:
    """Check that the group of the shared subscription is a share name (MQTT 5.0, 4.8.2) or empty (devicehub.E006)."""
    group = settings.mqtt_group
    if not group or (filters.is_topic(group) and "/" not in group):
        return []
    hint = "Use a word without slash, + and #, or leave it empty for a plain subscription."
    return [Error(f"DEVICEHUB_MQTT_GROUP is {group!r}.", hint=hint, id="devicehub.E006")]


@register()
def check_rate_limit(**_: Any) -> list[CheckMessage]:
    """Check that DEVICEHUB_RATE_LIMIT and DEVICEHUB_API_RATE are rates or empty (devicehub.E009)."""
    errors: list[CheckMessage] = []
    hint = "Write a number for each second, minute or hour, such as 600/m, or leave it empty for no limit."
    for name, read in RATES:
        try:
            read()
        except ValueError as error:
            errors.append(Error(f"{name}: {error}", hint=hint, id="devicehub.E009"))
    return errors


# Settings that are rates, and the functions that read them.
RATES: tuple[tuple[str, Callable[[], object]], ...] = (
    ("DEVICEHUB_RATE_LIMIT", lambda: settings.rate_limit),
    ("DEVICEHUB_API_RATE", lambda: settings.api_rate),
)


@register()
def check_bounds(**_: Any) -> list[CheckMessage]:
    """Check that the limits of storage are whole numbers (devicehub.E021)."""
    errors: list[CheckMessage] = []
    for name, read, least in BOUNDS:
        try:
            is_one = read() >= least
        except (TypeError, ValueError):
            is_one = False
        if not is_one:
            hint = f"Write a whole number of at least {least}."
            errors.append(
                Error(f"{name} is not a whole number, or less than {least}.", hint=hint, id="devicehub.E021")
            )
    return errors


# Settings that are whole numbers, the functions that read them, and their least values.
BOUNDS: tuple[tuple[str, Callable[[], int], int], ...] = (
    ("DEVICEHUB_MAX_SAMPLES", lambda: settings.max_samples, 1),
    ("DEVICEHUB_QUARANTINE_PER_DEVICE", lambda: settings.quarantine_per_device, 0),
)


@register()
def check_routers(**_: Any) -> list[CheckMessage]:
    """Check that devices are written to the database that broker requests read (devicehub.E008)."""
    elsewhere = {
        kind.device_model._meta.label: alias
        for kind in registry
        if (alias := router.db_for_write(kind.device_model)) != "default"
    }
    hint = "Let them leave the models of devices to `default`: a device that is disabled elsewhere stays allowed."
    return [
        Error(f"DATABASE_ROUTERS write {label} to {alias!r}.", hint=hint, id="devicehub.E008")
        for label, alias in elsewhere.items()
    ]


@register()
def check_retention(**_: Any) -> list[CheckMessage]:
    """Check that all retention periods can be read (devicehub.E020)."""
    errors: list[CheckMessage] = []
    hint = 'Write a timedelta or a text such as "30d"; None, or an empty text, keeps for ever.'
    for kind in registry:
        for option in sorted(set(kind.keep) - set(pruning.OPTIONS)):
            says = f"{kind.slug}: {option} is not one of {', '.join(pruning.OPTIONS)}."
            errors.append(Error(says, hint=hint, id="devicehub.E020"))
        for option in pruning.OPTIONS:
            try:
                pruning.keep(kind, option)
            except pruning.NotKept as error:
                errors.append(Error(f"{kind.slug}: {option}: {error}.", hint=hint, id="devicehub.E020"))
    try:
        pruning.keep_quarantine()
    except pruning.NotKept as error:
        errors.append(Error(f"DEVICEHUB_KEEP_QUARANTINE: {error}.", hint=hint, id="devicehub.E020"))
    return errors


@register(Tags.database)
def check_identities(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Check that no username or client id names two identities (devicehub.W007; `check --database default`)."""
    if not databases or "default" not in databases or not _migrated():
        return []
    hint = (
        "One could take over the session of the other, so no device may connect under this name. Rename one."
    )
    return [
        Warning(f"{name!r} names {' and '.join(keys)}.", hint=hint, id="devicehub.W007")
        for name, keys in provisioning.shared_names()
    ]


@register()
def check_actors(**_: Any) -> list[CheckMessage]:
    """Check that the audit knows who changes something on a page (devicehub.W023)."""
    middleware = list(django_settings.MIDDLEWARE)
    if AUTHENTICATION not in middleware:
        return []  # No page knows a user.
    hint = f"Put {ACTORS!r} directly below {AUTHENTICATION!r} in MIDDLEWARE."
    if ACTORS not in middleware:
        problem = "The audit records changes on pages under the login name of the server, not of the user."
        return [Warning(problem, hint=hint, id="devicehub.W023")]
    if middleware.index(ACTORS) < middleware.index(AUTHENTICATION):
        problem = f"{ACTORS} stands above the middleware that knows the user."
        return [Warning(problem, hint=hint, id="devicehub.W023")]
    return []


@register()
def check_second_factor(**_: Any) -> list[CheckMessage]:
    """Check that a second factor is asked for where its apps are installed (devicehub.W025)."""
    if not all(apps.is_installed(name) for name in second_factor.APPS) or second_factor.is_installed():
        return []
    hint = f"Put {second_factor.MIDDLEWARE!r} below {AUTHENTICATION!r} in MIDDLEWARE."
    problem = "A sign-in asks for no second factor, also of users who have one."
    return [Warning(problem, hint=hint, id="devicehub.W025")]


@register()
def check_api(**_: Any) -> list[CheckMessage]:
    """Check that the REST API refuses http itself, and that its page finds its files (devicehub.W026)."""
    try:
        root = reverse("devicehub:api").lstrip("/")
    except NoReverseMatch:
        return []  # The project leaves the pages out.
    found: list[CheckMessage] = []
    exempt = django_settings.SECURE_REDIRECT_EXEMPT
    if django_settings.SECURE_SSL_REDIRECT and not any(re.search(pattern, root) for pattern in exempt):
        problem = f"SECURE_SSL_REDIRECT leads programs that call /{root} to https, after they sent their key."
        hint = f'Add r"^{root[:-1]}(/|$)" to SECURE_REDIRECT_EXEMPT: the API then refuses http.'
        found.append(Warning(problem, hint=hint, id="devicehub.W026"))
    if not apps.is_installed("drf_spectacular_sidecar"):
        problem = f"The page about the REST API at /{root}docs/ lacks its script and its style."
        hint = 'Add "drf_spectacular_sidecar" to INSTALLED_APPS.'
        found.append(Warning(problem, hint=hint, id="devicehub.W026"))
    return found


AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
ACTORS = "devicehub.actors.note_actor"


@register(Tags.database)
def check_recorded(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Check that each change of credentials has its entry in the audit (devicehub.W024; `check --database default`)."""
    if not databases or "default" not in databases or not _migrated(AuditEntry, AuditRetention):
        return []
    found = provisioning.unrecorded(NAMED + 1)
    if not found:
        return []
    more = " and others" if len(found) > NAMED else ""
    hint = (
        "generate_credentials() with save(), a bulk write or SQL changes credentials without an entry. Use the actions "
        "of devicehub.provisioning, or call audit.record(). If the change is not yours, rotate these credentials."
    )
    problem = f"Credentials were changed without an entry in the audit: {', '.join(found[:NAMED])}{more}."
    return [Warning(problem, hint=hint, id="devicehub.W024")]


NAMED = 5  # A message names at most so many devices.


def _migrated(*models: type[Model]) -> bool:
    """Return whether all tables of identities exist: checks also run before the first migration."""
    tables = {Account._meta.db_table, *(model._meta.db_table for model in models)}
    tables |= {kind.device_model._meta.db_table for kind in registry}
    return tables <= set(connection.introspection.table_names())
