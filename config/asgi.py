"""The ASGI application: requests of brokers are answered first, all others go to Django."""

import os
import warnings
from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# whitenoise hands Django its small static files as plain iterators.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
django.setup(set_prefix=False)

from django.core.checks import run_checks  # noqa: E402 - models exist only now
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.http import HttpResponseBadRequest  # noqa: E402

from authsvc.asgi import Entrance  # noqa: E402

# A server runs no system checks by itself, and a wrong setting should not wait for the first login.
if _wrong := [str(found) for found in run_checks() if found.is_serious()]:
    raise ImproperlyConfigured("\n".join(_wrong))


class Site(ASGIHandler):
    """Django's handler, which also refuses header fields on which Django raises an error."""

    def create_request(self, scope: Any, body_file: Any) -> Any:
        """Return the request and no response, or no request and status 400."""
        try:
            return super().create_request(scope, body_file)
        except ValueError:  # For example `Content-Type: text/plain; charset*=x'y'z`.
            return None, HttpResponseBadRequest()


application = Entrance(Site())
