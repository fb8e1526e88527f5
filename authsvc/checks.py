"""System checks: wrong configuration is an error with an id and a hint, not a surprise at the first login."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's
from django.db import connection
from django.utils.module_loading import import_string

from authsvc import triggers
from authsvc.conf import InvalidKeys, settings

CLIENT_ID_MODES = ("bound", "any")


@register()
def check_directories(**_: Any) -> list[CheckMessage]:
    """authsvc.E001: every directory of AUTHSVC_DIRECTORIES exists and can look up."""
    errors: list[CheckMessage] = []
    hint = "Name classes with `async lookup(username)`, such as authsvc.directory.AccountDirectory."
    if not settings.directories:
        errors.append(
            Error("AUTHSVC_DIRECTORIES is empty, so nobody is known.", hint=hint, id="authsvc.E001")
        )
    for path in settings.directories:
        try:
            found = import_string(path)
        except ImportError as error:
            errors.append(Error(f"AUTHSVC_DIRECTORIES: {error}", hint=hint, id="authsvc.E001"))
            continue
        if not callable(getattr(found, "lookup", None)):
            errors.append(Error(f"AUTHSVC_DIRECTORIES: {path} has no lookup.", hint=hint, id="authsvc.E001"))
    return errors


@register()
def check_keys(**_: Any) -> list[CheckMessage]:
    """authsvc.E002: the keys of AUTHSVC_JWT_KEYS are keys."""
    hint = "A text of 32 bytes and more is an HS256 secret; a PEM private key on P-256 is for ES256."
    try:
        keys = settings.jwt_keys
    except InvalidKeys as error:
        return [Error(f"AUTHSVC_JWT_KEYS: {error}.", hint=hint, id="authsvc.E002")]
    return [] if keys else [Error("AUTHSVC_JWT_KEYS holds no key.", hint=hint, id="authsvc.E002")]


@register()
def check_client_ids(**_: Any) -> list[CheckMessage]:
    """authsvc.E003: AUTHSVC_CLIENT_ID is one of its two words; a typo would be taken for `bound`."""
    mode = getattr(django_settings, "AUTHSVC_CLIENT_ID", "bound")
    if mode in CLIENT_ID_MODES:
        return []
    hint = "`bound`: a client connects under its own client ids; `any`: under every one."
    return [Error(f"AUTHSVC_CLIENT_ID is {mode!r}.", hint=hint, id="authsvc.E003")]


@register()
def check_redirects(**_: Any) -> list[CheckMessage]:
    """authsvc.E004: no redirect to https stands before the Django entrance.

    mosquitto-go-auth follows redirects, and one that ends in any page with status 200 lets everybody in.
    """
    exempt = django_settings.SECURE_REDIRECT_EXEMPT
    if not django_settings.SECURE_SSL_REDIRECT or any(re.search(p, "mqtt/go-auth/user") for p in exempt):
        return []
    return [
        Error(
            "SECURE_SSL_REDIRECT answers the questions of brokers with a redirect.",
            hint='Set SECURE_REDIRECT_EXEMPT = [r"^mqtt/"], or whatever path includes authsvc.urls.',
            id="authsvc.E004",
        )
    ]


@register(Tags.database)
def check_triggers(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """authsvc.W005: the triggers that make a change of brokers and grants noticed are there."""
    if not databases or "default" not in databases:
        return []
    if not set(triggers.TABLES) <= set(connection.introspection.table_names()):
        return []  # before the first migrate
    hint = "Run `manage.py migrate`: it makes them again. Until then a removed grant may stay in force."
    return [
        Warning(f"The trigger {name} is missing.", hint=hint, id="authsvc.W005")
        for name in triggers.missing()
    ]
