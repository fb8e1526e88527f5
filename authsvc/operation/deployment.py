"""The findings of `manage.py check --deploy`, in the log of the service's start."""

import logging

import structlog
from django.conf import settings
from django.core.checks import run_checks

LOOPBACK = {"localhost", "127.0.0.1", "[::1]", "::1"}
log = structlog.get_logger(__name__)


def warn() -> None:
    """Log each finding of the system checks, including those for deployment if the site has a public host name."""
    is_public = not settings.DEBUG and not set(settings.ALLOWED_HOSTS) <= LOOPBACK
    for found in run_checks(include_deployment_checks=is_public):
        if found.level >= logging.WARNING and not found.is_silenced():
            log.warning("check.found", id=found.id, message=found.msg, hint=found.hint)
