"""The limits of people, and the forms that worked already."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models


def validate_sites(value: Any) -> None:
    """Raise ValidationError unless *value* is a list of names of sites."""
    if not isinstance(value, list) or not all(isinstance(site, str) and site for site in value):
        raise ValidationError("Choose sites from the list; the empty site cannot be chosen.")


class SiteScope(models.Model):
    """A user who is limited to sites: they see and change only devices whose site is exactly one of these.

    A user without a row is not limited. A row with an empty list hides every device.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="site_scope"
    )
    sites = models.JSONField(default=list, validators=[validate_sites])

    def __str__(self) -> str:
        return f"{self.user}: {', '.join(self.sites) or 'no site'}"


class UsedForm(models.Model):
    """A form that was submitted: its number works once. The row is deleted once the number has expired."""

    digest = models.CharField(max_length=64, primary_key=True)
    used_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.digest
