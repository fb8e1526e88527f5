"""System checks: they report a wrong configuration with an id and a hint before the first login."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's
from django.db import connection, connections, router
from django.middleware.common import CommonMiddleware
from django.urls import URLResolver, get_resolver
from django.urls.resolvers import LocalePrefixPattern
from django.utils.encoding import force_bytes
from django.utils.module_loading import import_string

from authsvc import views
from authsvc.audit import retention
from authsvc.audit import triggers as keeping
from authsvc.brokers.base import InvalidAddress, host_of
from authsvc.conf import InvalidKeys, InvalidProxy, proxy, settings
from authsvc.core.tokens import MIN_KEY_BYTES
from authsvc.freshness import triggers
from authsvc.models import AuditEntry, AuditRetention

CLIENT_ID_MODES = ("bound", "any")
MIN_CHARACTERS = 5  # Different characters in SECRET_KEY, as in Django's security.W009.
# The User-Agent of brokers that send one.
USER_AGENTS = {
    "Go-http-client/1.1": "mosquitto-go-auth",
    "mosquitto-2.0.22": "mosquitto-go-auth",
    "hackney/1.20.1": "VerneMQ",
    "amqtt": "aMQTT",
}
# Usual names of middleware that refuses requests without a login.
LOGIN = re.compile(
    r"(?i)(log_?in|auth|authentication|sso|otp|mfa|2fa|two_?factor|password)_?\w*"
    r"(require|enforce|force|wall|gate|only|mandatory|protect)"
    r"|(require|enforce|force|mandatory|protect|only)\w*(log_?in|auth|sso|otp|mfa|2fa|two_?factor|password)"
    r"|private|restrict|staff_?only|lock_?down|maintenance"
)
ASK_THE_VIEW = frozenset(
    {
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
        "login_required.middleware.LoginRequiredMiddleware",
        "stronghold.middleware.LoginRequiredMiddleware",
        "login_required_all.middleware.LoginRequiredMiddleware",
    }
)


@register()
def check_directories(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E001 unless every directory of AUTHSVC_DIRECTORIES exists and has lookup()."""
    errors: list[CheckMessage] = []
    hint = "Name classes with `async lookup(username)`, such as authsvc.directory.AccountDirectory."
    if not settings.directories:
        errors.append(
            Error("AUTHSVC_DIRECTORIES is empty: all clients are refused.", hint=hint, id="authsvc.E001")
        )
    for path in settings.directories:
        try:
            found = import_string(path)
        except ImportError as error:
            errors.append(Error(f"AUTHSVC_DIRECTORIES: {error}", hint=hint, id="authsvc.E001"))
            continue
        if not callable(getattr(found, "lookup", None)):
            errors.append(
                Error(f"AUTHSVC_DIRECTORIES: {path} has no method lookup.", hint=hint, id="authsvc.E001")
            )
    return errors


@register()
def check_keys(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E002 unless AUTHSVC_JWT_KEYS holds valid keys."""
    if not getattr(django_settings, "AUTHSVC_JWT_KEYS", None):
        return []  # The key is derived from SECRET_KEY, which check_secret_key() checks.
    hint = "Use a text of 32 bytes or more as an HS256 secret, or a PEM private key on P-256 for ES256."
    try:
        keys = settings.jwt_keys
    except InvalidKeys as error:
        return [Error(f"AUTHSVC_JWT_KEYS: {error}.", hint=hint, id="authsvc.E002")]
    return [] if keys else [Error("AUTHSVC_JWT_KEYS holds no key.", hint=hint, id="authsvc.E002")]


@register()
def check_secret_key(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E020, W021 if SECRET_KEY could be guessed from a token that a device has."""
    if django_settings.DEBUG:
        return []
    key = force_bytes(django_settings.SECRET_KEY)
    hint = 'Make one with: python -c "import secrets; print(secrets.token_urlsafe(50))"'
    if len(key) < MIN_KEY_BYTES:
        return [
            Error(f"SECRET_KEY has fewer than {MIN_KEY_BYTES} bytes.", hint=hint, id="authsvc.E020"),
        ]
    if len(set(key)) < MIN_CHARACTERS or key.startswith(b"django-insecure-"):
        return [Warning("SECRET_KEY is long enough, but easy to guess.", hint=hint, id="authsvc.W021")]
    return []


@register()
def check_client_ids(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E003 unless AUTHSVC_CLIENT_ID is `bound` or `any`; a typo would mean `bound`."""
    mode = getattr(django_settings, "AUTHSVC_CLIENT_ID", "bound")
    if mode in CLIENT_ID_MODES:
        return []
    hint = "Use `bound` (a client connects under its own client ids) or `any` (under every client id)."
    return [Error(f"AUTHSVC_CLIENT_ID is {mode!r}.", hint=hint, id="authsvc.E003")]


@register()
def check_redirects(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E004 if questions at the Django entrance are redirected to https.

    mosquitto-go-auth follows redirects, and a redirect to any page with status 200 would admit all clients.
    """
    if not django_settings.SECURE_SSL_REDIRECT:
        return []
    script = (django_settings.FORCE_SCRIPT_NAME or "").strip("/")
    exempt = django_settings.SECURE_REDIRECT_EXEMPT
    errors: list[CheckMessage] = []
    for mount in _mounts():
        prefix = f"{script}/{mount.path}" if script else mount.path
        if not any(re.search(pattern, f"{prefix}go-auth/user") for pattern in exempt):
            errors.append(
                Error(
                    f"SECURE_SSL_REDIRECT answers the questions of brokers at /{prefix} with a redirect.",
                    hint=f'Add r"^{re.escape(prefix)}" to SECURE_REDIRECT_EXEMPT.',
                    id="authsvc.E004",
                )
            )
    return errors


@register()
def check_host_redirects(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E006 if PREPEND_WWW redirects questions to a host name with www."""
    if not (django_settings.PREPEND_WWW and _mounts() and _has_middleware(CommonMiddleware)):
        return []
    hint = "Configure the redirect in the proxy instead, or use the ASGI entrance (authsvc.asgi.Entrance)."
    return [
        Error("PREPEND_WWW answers the questions of brokers with a redirect.", hint=hint, id="authsvc.E006")
    ]


@register()
def check_languages(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E007 if authsvc.urls is below i18n_patterns(), which moves it to a path with a language."""
    hint = 'Move path("mqtt/", include("authsvc.urls")) from i18n_patterns() to urlpatterns.'
    return [
        Error(
            f"authsvc.urls is included below i18n_patterns(), at /{mount.path}: questions are redirected.",
            hint=hint,
            id="authsvc.E007",
        )
        for mount in _mounts()
        if mount.below_a_language
    ]


@register()
def check_hosts(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E008 if no host name is allowed for requests of brokers."""
    if django_settings.ALLOWED_HOSTS or django_settings.DEBUG:
        return []
    if not (_mounts() and _has_middleware(CommonMiddleware)):
        return []
    hint = "Add the host name, without port, of the URL in the configuration of the broker."
    return [
        Error("ALLOWED_HOSTS is empty: every question is answered with 400.", hint=hint, id="authsvc.E008")
    ]


@register()
def check_user_agents(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E009 if DISALLOWED_USER_AGENTS refuses the HTTP client of a broker."""
    if not (_mounts() and _has_middleware(CommonMiddleware)):
        return []
    hint = "Change the patterns so that they do not match. A 403 is not a deny for EMQX: it asks its next source."
    return [
        Error(
            f"DISALLOWED_USER_AGENTS refuses {agent!r}, the User-Agent of {broker}.",
            hint=hint,
            id="authsvc.E009",
        )
        for agent, broker in USER_AGENTS.items()
        if any(pattern.search(agent) for pattern in django_settings.DISALLOWED_USER_AGENTS)
    ]


@register()
def check_login_middleware(**_: Any) -> list[CheckMessage]:
    """Report authsvc.W010 for middleware that, by its name, may require a login of brokers.

    The ones of Django, django-stronghold and django-login-required-middleware read marks of views, which ours have.
    """
    if not _mounts():
        return []
    hint = (
        "Test it: curl -i -X POST https://<site>/mqtt/go-auth/user must answer 403 and "
        '{"ok":false,"error":"denied"}. If it redirects, exempt the path or use the ASGI entrance; '
        "if not, add authsvc.W010 to SILENCED_SYSTEM_CHECKS."
    )
    return [
        Warning(
            f"{path} may answer in place of this service, for example with a login page.",
            hint=hint,
            id="authsvc.W010",
        )
        for path in django_settings.MIDDLEWARE
        if LOGIN.search(path.rpartition(".")[2]) and not _asks_the_view(path)
    ]


@register()
def check_engine(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E011 unless the database `default` is SQLite or PostgreSQL."""
    engine = str(connections.settings["default"]["ENGINE"])
    if any(name in engine for name in ("sqlite", "spatialite", "postg")):
        return []
    hint = "Use SQLite or PostgreSQL as `default`, and route your own models to the other database."
    return [
        Error(
            f"DATABASES['default'] has the ENGINE {engine}, which is not supported.",
            hint=hint,
            id="authsvc.E011",
        )
    ]


@register()
def check_routers(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E012 if a router writes models of authsvc to a database that questions do not read."""
    elsewhere = {
        model._meta.label: alias
        for model in apps.get_app_config("authsvc").get_models()
        if (alias := router.db_for_write(model)) != "default"
    }
    hint = "Route the models of authsvc to `default`: questions read that database."
    return [
        Error(f"DATABASE_ROUTERS write {label} to {alias!r}.", hint=hint, id="authsvc.E012")
        for label, alias in elsewhere.items()
    ]


@register()
def check_time(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E013 if stored times could be read in another zone, so that passwords expire late."""
    errors: list[CheckMessage] = []
    if not django_settings.USE_TZ:
        hint = "Set USE_TZ = True. TIME_ZONE may have any value: it only changes how times are shown."
        errors.append(
            Error(
                "USE_TZ is False: the expiry times of passwords have no zone.", hint=hint, id="authsvc.E013"
            )
        )
    default = connections.settings["default"]
    zone = default.get("TIME_ZONE")
    if zone not in (None, "UTC") and "lite" in str(default["ENGINE"]):
        hint = "Remove it: on SQLite it shifts the stored times."
        errors.append(Error(f"DATABASES['default'] has the TIME_ZONE {zone}.", hint=hint, id="authsvc.E013"))
    return errors


@register()
def check_memory(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E014 if a bound of caches or of bodies is too small."""
    errors: list[CheckMessage] = []
    for name, value, least in (
        ("AUTHSVC_STALE_SECONDS", settings.stale_seconds, 0),
        ("AUTHSVC_CACHE_SIZE", settings.cache_size, 1),
        ("AUTHSVC_MAX_BODY", settings.max_body, 1),
    ):
        if value < least:
            hint = f"Use {least} or more."
            errors.append(Error(f"{name} is {value}.", hint=hint, id="authsvc.E014"))
    return errors


@register()
def check_proxies(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E016 for an entry of TRUSTED_PROXIES that is not a network; it trusts no peer."""
    errors: list[CheckMessage] = []
    hint = "Write networks, such as 10.0.0.0/8 or 2001:db8::/32, and `unix` for unix sockets."
    if isinstance(getattr(django_settings, "TRUSTED_PROXIES", ()), str):
        return [Error("TRUSTED_PROXIES is a text and not a list.", hint=hint, id="authsvc.E016")]
    for entry in settings.trusted_proxies:
        try:
            proxy(entry)
        except InvalidProxy as error:
            errors.append(Error(f"TRUSTED_PROXIES: {error}.", hint=hint, id="authsvc.E016"))
    return errors


@register(Tags.security, deploy=True)
def check_proxy_is_named(**_: Any) -> list[CheckMessage]:
    """Report authsvc.W017 if the site is behind a proxy and TRUSTED_PROXIES is empty."""
    if django_settings.SECURE_PROXY_SSL_HEADER is None or settings.trusted_proxies:
        return []
    hint = "Set TRUSTED_PROXIES to the addresses of the proxies that append to X-Forwarded-For."
    return [
        Warning(
            "The site is behind a proxy, and TRUSTED_PROXIES is empty: all clients share the proxy's address.",
            hint=hint,
            id="authsvc.W017",
        )
    ]


@register()
def check_url(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E022 if AUTHSVC_URL is not an address, since a broker could not use its configuration."""
    try:
        host_of(settings.url)
    except InvalidAddress as error:
        hint = "Write the address at which brokers reach this service, such as http://hub.example.org:8000."
        return [Error(f"AUTHSVC_URL {error}.", hint=hint, id="authsvc.E022")]
    return []


@register(Tags.database)
def check_triggers(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Report authsvc.W005 for each missing trigger; without it changes go unnoticed."""
    if not databases or "default" not in databases:
        return []
    if not set(triggers.TABLES) <= set(connection.introspection.table_names()):
        return []  # Before the first migrate.
    hint = "Run `manage.py migrate` to create it. Until then every question reads the database."
    return [
        Warning(f"The trigger {name} is missing.", hint=hint, id="authsvc.W005")
        for name in triggers.missing()
    ]


@register()
def check_audit_retention(**_: Any) -> list[CheckMessage]:
    """Report authsvc.E023 unless AUTHSVC_KEEP_AUDIT is a time of at least a day, or empty."""
    try:
        retention.configured()
    except retention.InvalidRetention as error:
        hint = "Write a timedelta or a text such as 730d; an empty text keeps entries for ever."
        return [Error(f"AUTHSVC_KEEP_AUDIT: {error}.", hint=hint, id="authsvc.E023")]
    return []


@register(Tags.database)
def check_audit(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Report authsvc.W024 for each missing trigger of the audit, and for a retention that is not in force."""
    if not databases or "default" not in databases:
        return []
    tables = {AuditEntry._meta.db_table, AuditRetention._meta.db_table}
    if not tables <= set(connection.introspection.table_names()):
        return []  # Before the first migrate.
    problems = [
        f"The trigger {name} is missing: entries of the audit could be changed." for name in keeping.missing()
    ]
    with suppress(retention.InvalidRetention):  # authsvc.E023 reports it.
        if not retention.is_applied():
            problems.append("AUTHSVC_KEEP_AUDIT has changed, and the new time is not in force yet.")
    hint = "Run `manage.py migrate`."
    return [Warning(problem, hint=hint, id="authsvc.W024") for problem in problems]


class Mount(NamedTuple):
    """A path at which a project includes authsvc.urls, such as `mqtt/`."""

    path: str
    below_a_language: bool = False


def _mounts() -> list[Mount]:
    """Return all paths at which the Django entrance answers; none if only the ASGI entrance does."""
    if not hasattr(django_settings, "ROOT_URLCONF"):
        return []
    return list(_below(get_resolver(), Mount("")))


def _below(resolver: URLResolver, place: Mount) -> Iterator[Mount]:
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            by_language = isinstance(entry.pattern, LocalePrefixPattern)
            # A placeholder of the project, such as a tenant, becomes a fixed level.
            text = re.sub(r"<[^<>]*>", "x", str(entry.pattern).removeprefix("^"))
            yield from _below(entry, Mount(place.path + text, place.below_a_language or by_language))
        elif entry.callback is views.question:
            yield place


def _middleware() -> Iterator[tuple[str, Any]]:
    for path in django_settings.MIDDLEWARE:
        with suppress(ImportError):  # Django reports it itself, and does not start.
            yield path, import_string(path)


def _has_middleware(kind: type) -> bool:
    return any(isinstance(found, type) and issubclass(found, kind) for _, found in _middleware())


def _asks_the_view(path: str) -> bool:
    """Return whether the middleware at *path* exempts marked views, as ours are."""
    if path in ASK_THE_VIEW:
        return True
    process_view = getattr(dict(_middleware()).get(path), "process_view", None)
    # Compared by module name: importing it needs `django.contrib.auth` in INSTALLED_APPS.
    return getattr(process_view, "__module__", "") == "django.contrib.auth.middleware"
