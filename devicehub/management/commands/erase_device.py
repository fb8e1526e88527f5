"""`manage.py erase_device TYPE DEVICE_ID`: remove a device and everything that is stored about it."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import IntegrityError

from authsvc.management.command import ReasonedCommand
from devicehub import provisioning, removal
from devicehub.management.batch_command import BatchCommand
from devicehub.removal import Erased, retained
from devicehub.retention import pruning


class Command(ReasonedCommand, BatchCommand):
    help = "Remove a device and everything that is stored about it, history included; its audit entries stay."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("type", help="the device type, such as weatherstation")
        parser.add_argument("device_id", help="id of the device, which may be deleted already")
        parser.add_argument("--dry-run", action="store_true", help="count, and remove nothing")
        parser.add_argument("--yes", action="store_true", help="erase without confirmation")
        super().add_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print the numbers as JSON")

    def handle(self, *, device_id: str, batch: int, **options: Any) -> str:
        kind = provisioning.kind_of(options["type"])
        key, found = kind.key(device_id), removal.preview(kind, device_id)
        if found.is_empty:
            raise CommandError(f"There is no {key}, and no data of it is left")
        if options["dry_run"]:
            return _report(f"{key} would be erased", found, as_json=options["json"])
        if not options["yes"] and not _confirmed(key, found):
            raise CommandError("Nothing was changed; --yes erases without confirmation")
        stopped = f"Stopped: {key} is disabled, but not erased yet; run the command again"
        with self.pace(batch, stopped=stopped) as pace:
            try:
                done = removal.erase(kind, device_id, pace)
            except IntegrityError as error:  # ProtectedError and RestrictedError are subclasses.
                reason = str(error.args[0] if error.args else error).partition("\n")[0]
                raise CommandError(f"{key} cannot be deleted: {reason}") from error
        retained.clear()
        pruning.settle_file()
        return _report(f"{key} is erased", done, as_json=options["json"])


def _confirmed(key: str, found: Erased) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{_report(f'{key} would be erased', found)}\nType {key} to erase it: ").strip() == key


def _named(name: str, count: int) -> str:
    words = name.replace("_", " ")
    if count != 1:
        return words
    return f"{words[:-3]}y" if words.endswith("ies") else words.removesuffix("s")


def _report(sentence: str, counts: Erased, *, as_json: bool = False) -> str:
    if as_json:
        return json.dumps(counts.counts())
    shown = {name: count for name, count in counts.counts().items() if name not in ("device", "audit_kept")}
    listed = ", ".join(f"{count} {_named(name, count)}" for name, count in shown.items())
    kept = f"{counts.audit_kept} audit entr{'y' if counts.audit_kept == 1 else 'ies'} about it"
    return f"{sentence}: {listed}. Kept: {kept}"
