"""The ASGI application: the questions of brokers first, everything else to Django."""

import os
import warnings

from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# whitenoise hands Django its small static files as plain iterators.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
_site = get_asgi_application()

from django.core.checks import run_checks  # noqa: E402

from authsvc.asgi import Entrance  # noqa: E402 - its models exist only now

# A server runs no system checks by itself, and a wrong setting should not wait for the first login.
if _wrong := [str(found) for found in run_checks() if found.is_serious()]:
    raise ImproperlyConfigured("\n".join(_wrong))

application = Entrance(_site)
