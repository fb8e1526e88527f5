"""`manage.py provision_devices TYPE --count N --prefix P --output FILE|-`: create devices with credentials."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.template.defaultfilters import pluralize
from rich.console import Console
from rich.progress import Progress

from authsvc.management.command import ReasonedCommand
from devicehub import provisioning
from devicehub.kinds.registry import Kind
from devicehub.models import validate_device_id

BEGIN = "["  # The file begins with this.


class Command(ReasonedCommand):
    help = "Create devices and write their credentials to a new file that only its owner can read."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("--count", type=int, required=True, help="number of devices")
        parser.add_argument("--prefix", required=True, help="ids are PREFIX001, PREFIX002, ...")
        parser.add_argument("--output", required=True, help="a new file, or - for standard output")

    def handle(self, *, count: int, prefix: str, output: str, **options: Any) -> None:
        if count < 1:
            raise CommandError("--count must be 1 or more")
        try:
            kind = provisioning.kind_of(options["type"])
            validate_device_id(f"{prefix}001")
            with _opened(output) as file:
                self._provision(kind, prefix, count, file)
        except FileExistsError as error:
            raise CommandError(f"{output} exists already; give the name of a new file") from error
        except OSError as error:
            raise CommandError(f"{output} cannot be written: {error.strerror}") from error
        self.stderr.write(f"Provisioned {count} device{pluralize(count)} of type {kind.slug}")

    def _provision(self, kind: Kind, prefix: str, count: int, file: IO[str]) -> None:
        """Create the devices. Each line is on the disk before the commit of its device, so no crash loses one."""
        file.write(BEGIN)
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            ids = provisioning.next_ids(kind, prefix, count)
            for number, device_id in enumerate(progress.track(ids, total=count, description=kind.slug)):
                with transaction.atomic():
                    device, credentials = provisioning.create(kind, device_id)
                    line = json.dumps(provisioning.described(kind, device, credentials))
                    file.write(f"{',' if number else ''}\n {line}")
                    _flush(file)
        file.write("\n]\n")


@contextlib.contextmanager
def _opened(output: str) -> Iterator[IO[str]]:
    if output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            yield file
    except (provisioning.IdentityTaken, ValidationError):
        if os.path.getsize(output) <= len(BEGIN):  # No device was created, so the same call can be retried.
            os.remove(output)
        raise


def _flush(file: IO[str]) -> None:
    file.flush()
    if file is not sys.stdout:
        os.fsync(file.fileno())
