"""The pages of the models of each kind."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.module_loading import import_string

from devicehub.admin.devices import DeviceAdmin
from devicehub.admin.records import MessageAdmin, ReadingAdmin
from devicehub.kinds.registry import Kind, registry


def register(kind: Kind) -> None:
    """Register the models of *kind* and those that its Pages declare, unless the project registered them itself."""
    pages: dict[type[Any], Any] = {
        kind.device_model: DeviceAdmin,
        **dict.fromkeys(kind.value_models, ReadingAdmin),
        kind.message_model: MessageAdmin,
    }
    pages |= {model: import_string(path) for model, path in kind.pages.admin.items()}
    for model, model_admin in pages.items():
        if not admin.site.is_registered(model):
            admin.site.register(model, model_admin)


# Django imports this module after the models of all apps, so every kind exists.
for _kind in registry:
    register(_kind)
