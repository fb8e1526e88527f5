"""The pages of the models of each kind."""

from __future__ import annotations

from django.contrib import admin

from devicehub.admin.devices import DeviceAdmin
from devicehub.admin.records import MessageAdmin, ReadingAdmin
from devicehub.kinds.registry import Kind, registry


def register(kind: Kind) -> None:
    """Register the three models of *kind*, unless the project registered its own admin for them."""
    for model, model_admin in (
        (kind.device_model, DeviceAdmin),
        (kind.reading_model, ReadingAdmin),
        (kind.message_model, MessageAdmin),
    ):
        if not admin.site.is_registered(model):
            admin.site.register(model, model_admin)


for _kind in registry:  # Django imports this module when every app's models, and so every kind, exist
    register(_kind)
