"""The base of all commands: an expected error is one line, with exit code 1."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, OperationalError

from authsvc import audit
from authsvc.errors import AuthsvcError, lacks_tables


class DatabaseCommand(BaseCommand):
    """A command that exits with code 1 and one line after a refusal or a failure of the database.

    Refusals are AuthsvcError, so also those of devicehub, and ValidationError. Failures of the database are that it
    does not answer, is full, or has no tables.
    """

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command. Raise CommandError with one line after a refusal or a failure."""
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
                    f"The database lacks a table or column of this version ({said}): run `manage.py migrate`"
                ) from error
            # For a file that is not a database, or a broken one, SQLite raises a plain DatabaseError. Other subclasses
            # are bugs.
            if isinstance(error, OperationalError | InterfaceError) or type(error) is DatabaseError:
                raise CommandError(
                    f"The database failed: {said}; committed changes stay, so run this again when it works"
                ) from error
            raise


class ReasonedCommand(DatabaseCommand):
    """A command that changes credentials or rights. The audit keeps the text of `--reason` with its changes."""

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        """Return the parser of the command, with `--reason`."""
        parser = super().create_parser(prog_name, subcommand, **options)
        parser.add_argument("--reason", metavar="TEXT", default="", help="the reason, for the audit")
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command, and record its changes with the reason."""
        with audit.because(options.pop("reason", "")):
            return super().execute(*args, **options)
