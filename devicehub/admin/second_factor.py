"""No pages for the keys of authenticator apps: a list of them would be one to search. Users have their own page."""

from __future__ import annotations

from django.apps import apps
from django.contrib import admin

MODELS = ("otp_totp.TOTPDevice", "otp_static.StaticDevice")


def leave_out() -> None:
    """Take the pages of django-otp out, if its apps stand before this one in INSTALLED_APPS."""
    for label in MODELS:
        if not apps.is_installed(f"django_otp.plugins.{label.partition('.')[0]}"):
            continue
        model = apps.get_model(label)
        if admin.site.is_registered(model):
            admin.site.unregister(model)


leave_out()
