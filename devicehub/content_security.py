"""The texts of Content-Security-Policy: the strict one of our own pages, and a wider one for the admin."""

from __future__ import annotations

from django.http import HttpResponseBase

HEADER = "Content-Security-Policy"


def _policy(*, script: str = "'self'", style: str = "'self'") -> str:
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src {script}",
            f"style-src {style}",
            "img-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


POLICY = _policy()
# The admin uses unfold, whose library Alpine compiles the expressions in attributes, and sets styles.
ADMIN_POLICY = _policy(script="'self' 'unsafe-eval'", style="'self' 'unsafe-inline'")


def restrict(response: HttpResponseBase) -> None:
    """Have the page of *response* run and load only files of this site, and nothing inline, also below the admin."""
    response.headers[HEADER] = POLICY
