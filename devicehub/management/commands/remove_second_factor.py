"""`manage.py remove_second_factor`: let a user who lost the app and the backup codes sign in by password again."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser

from authsvc.management.command import ReasonedCommand
from devicehub import second_factor


class Command(ReasonedCommand):
    help = "Remove the second factor of a user, who then signs in by password and can add a new one."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the name of the user."""
        parser.add_argument("username", help="the name with which the user signs in")

    def handle(self, *, username: str, **options: Any) -> str:
        """Remove the second factor, and report it."""
        user = get_user_model()._default_manager.filter(**{get_user_model().USERNAME_FIELD: username}).first()
        if user is None:
            raise CommandError(f"There is no user {username!r}.")
        if not second_factor.is_installed() or not second_factor.remove(user):
            raise CommandError(f"{username} has no second factor.")
        return f"{username} signs in by password alone now."
