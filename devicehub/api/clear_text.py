"""The refusal of requests over http where the site is for https."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest

from devicehub.api.problems import Problem


def refuse(request: HttpRequest) -> None:
    """Raise Problem `https-required` for *request* over http, if the settings lead pages to https.

    It is refused and not redirected: a client that follows would send its key in clear text every time.
    """
    if settings.SECURE_SSL_REDIRECT and not request.is_secure():
        raise Problem("https-required")
