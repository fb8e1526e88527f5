"""The limits of people, and the forms that worked already."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models

# Marks in the text that a browser sends about itself. Later ones also stand in the texts of earlier browsers.
BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)


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


class SignIn(models.Model):
    """A session of a user. The session holds the number of this row, and without the row it counts as ended."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sign_ins")
    address = models.CharField(max_length=45, blank=True)
    agent = models.CharField(max_length=200, blank=True)
    signed_in_at = models.DateTimeField()
    last_seen = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.user} from {self.address or 'nowhere'}"

    @property
    def browser(self) -> str:
        """The browser and the system in words, as far as the request named them."""
        name = next((name for mark, name in BROWSERS if mark in self.agent), "")
        system = next((name for mark, name in SYSTEMS if mark in self.agent), "")
        return " on ".join(filter(None, (name, system))) or self.agent[:40] or "unknown"


class UsedForm(models.Model):
    """A form that was submitted: its number works once. The row is deleted once the number has expired."""

    digest = models.CharField(max_length=64, primary_key=True)
    used_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.digest
