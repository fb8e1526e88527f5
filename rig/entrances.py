"""The two entrances for questions, in front of Django and inside it, and the real wake-up call."""

from __future__ import annotations

from django.core.asgi import get_asgi_application

from authsvc import background
from authsvc.asgi import Entrance

SITE = get_asgi_application()
ENTRANCES = {"asgi": Entrance(SITE), "django": SITE}
WAKE = background.wake  # a fixture replaces it in its module for each test
