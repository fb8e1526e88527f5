"""The file into which a command writes new credentials: readable for its owner only, and never overwritten."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

from django.core.management.base import CommandError

from devicehub.bulk import issued
from devicehub.bulk.rotations import Overtaken


class CredentialsOutput:
    """A file of credentials. add() returns when its lines are on the disk, so a crash after the commit loses none."""

    def __init__(self, file: IO[str], name: str) -> None:
        self._file = file
        self._form = issued.new_file("csv" if name.lower().endswith(".csv") else "json")
        self.count = 0
        file.write(self._form.begin())

    def add(self, devices: list[issued.Issued]) -> None:
        """Write the credentials of *devices*."""
        if devices:
            self._file.write(self._form.piece(devices))
            flush(self._file)
            self.count += len(devices)

    @contextlib.contextmanager
    def completed(self) -> Iterator[None]:
        """Complete the file after the block, or with the reason why it is of no use if the run was overtaken."""
        try:
            yield
        except Overtaken as error:
            self._file.write(self._form.broken(str(error)))
            raise
        else:
            self._file.write(self._form.end())
        finally:
            flush(self._file)


@contextlib.contextmanager
def credentials_output(name: str) -> Iterator[CredentialsOutput]:
    """Yield the output *name*: CSV if it ends in .csv, otherwise JSON; `-` is standard output.

    A file without any credentials is removed, so that the same call can be repeated. Raise CommandError if the file
    exists or cannot be written.
    """
    if name == "-":
        output = CredentialsOutput(sys.stdout, name)
        with output.completed():
            yield output
        return
    with _new_file(name) as file:
        output = CredentialsOutput(file, name)
        try:
            with output.completed():
                yield output
        finally:
            if not output.count:
                os.remove(name)


def _new_file(name: str) -> IO[str]:
    try:
        return os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="")
    except FileExistsError as error:
        raise CommandError(f"{name} exists already; give the name of a new file") from error
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error.strerror}") from error


def flush(file: IO[str]) -> None:
    """Write *file* to the disk."""
    file.flush()
    if file is not sys.stdout:
        os.fsync(file.fileno())
