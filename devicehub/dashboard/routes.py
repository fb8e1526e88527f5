"""The URLs that other apps add to those of the pages, in the namespace `devicehub`.

An app registers them when it is ready:

    class FirmwareConfig(AppConfig):
        def ready(self) -> None:
            routes.register("firmware.urls")
"""

from __future__ import annotations

from typing import Any

from django.urls import include, path

_modules: list[str] = []


def register(module: str) -> None:
    """Add the `urlpatterns` of *module*, a dotted path, after those of the pages of devicehub itself."""
    if module not in _modules:
        _modules.append(module)


def patterns() -> list[Any]:
    """Return the URLs of all apps that registered theirs."""
    return [path("", include(module)) for module in _modules]
