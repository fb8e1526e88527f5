"""The ASGI application: the questions of brokers first, everything else to Django."""

import os
import warnings

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# whitenoise hands Django its small static files as plain iterators.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
_site = get_asgi_application()

from authsvc.asgi import Entrance  # noqa: E402 - its models exist only now

application = Entrance(_site)
