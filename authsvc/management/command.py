"""What all commands have in common: an error of which the cause is known is one line, and exit code 1."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, OperationalError

from authsvc.errors import AuthsvcError, lacks_tables


class DatabaseCommand(BaseCommand):
    """A command that ends with exit code 1 and one line when something is refused, or when the database fails.

    Refusals are AuthsvcError, so also devicehub's, and ValidationError. A database fails that is away, is full, or
    has no tables.
    """

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command; raise CommandError with the one line."""
        try:
            return super().execute(*args, **options)
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        except AuthsvcError as error:
            raise CommandError(str(error)) from error
        except (DatabaseError, InterfaceError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            if lacks_tables(error):
                raise CommandError(
                    f"The database lacks what this version needs ({said}): run `manage.py migrate`"
                ) from error
            # A file that is no database, or a broken one, is a plain DatabaseError; other kinds of it are our mistakes.
            if isinstance(error, OperationalError | InterfaceError) or type(error) is DatabaseError:
                raise CommandError(
                    f"The database failed: {said}; what was committed stays, so run this again when it works"
                ) from error
            raise
