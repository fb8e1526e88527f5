"""The routes below `/api/` that other apps add.

An app registers them when it is ready:

    class FirmwareConfig(AppConfig):
        def ready(self) -> None:
            api_routes.register("firmware.api.urls")
"""

from __future__ import annotations

from typing import Any

from django.urls import include, path

_modules: list[str] = []


def register(module: str) -> None:
    """Add the `urlpatterns` of *module*, a dotted path, to those below `/api/`."""
    if module not in _modules:
        _modules.append(module)


def patterns() -> list[Any]:
    """Return the routes of all apps that registered theirs."""
    return [path("", include(module)) for module in _modules]
