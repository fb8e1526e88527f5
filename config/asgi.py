"""The ASGI application: the questions of brokers first, everything else to Django."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
_site = get_asgi_application()

from authsvc.asgi import Entrance  # noqa: E402 - its models exist only now

application = Entrance(_site)
