"""`manage.py prune_telemetry [TYPE]`: delete expired rows of the device types, in small portions."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import IntegrityError
from django.template.defaultfilters import pluralize

from authsvc.durations import duration
from authsvc.text import in_utc
from devicehub import provisioning
from devicehub.kinds.registry import Kind, registry
from devicehub.management.batch_command import BatchCommand
from devicehub.retention import pruning
from devicehub.retention.pruning import Pruned


class Command(BatchCommand):
    help = "Delete readings, messages, rollups, quarantined messages and audit entries whose time to keep is over."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "type", nargs="?", help="only this device type, and neither the quarantine nor the audit"
        )
        parser.add_argument(
            "--older-than",
            type=duration,
            help="with a type: use this time, such as 30d, for its keep_readings and keep_messages",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, and delete nothing")
        super().add_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, *, older_than: timedelta | None, batch: int, **options: Any) -> str:
        if older_than is not None and not options["type"]:
            raise CommandError("--older-than needs a type: without one it would apply to all types")
        if older_than is not None and older_than < timedelta(hours=1):
            raise CommandError("--older-than must be at least 1h: readings are deleted by whole hours")
        report: dict[str, list[Pruned]] = {}
        stopped = "Stopped before the end; rows deleted so far stay deleted, run it again"
        with self.pace(batch, stopped=stopped) as pace:
            try:
                for kind in _kinds(options["type"]):
                    report[kind.slug] = (
                        pruning.preview(kind, older_than=older_than)
                        if options["dry_run"]
                        else pruning.prune(kind, pace, older_than=older_than)
                    )
                if not options["type"]:
                    report["quarantine"] = [
                        pruning.preview_quarantine() if options["dry_run"] else pruning.prune_quarantine(pace)
                    ]
                    report["audit"] = [
                        pruning.preview_audit() if options["dry_run"] else pruning.prune_audit(pace)
                    ]
            except IntegrityError as error:
                raise CommandError(f"Another table refers to rows that are to be deleted: {error}") from error
            pruning.settle_file()
        if options["json"]:
            return json.dumps(
                {name: [asdict(one) for one in found] for name, found in report.items()},
                cls=DjangoJSONEncoder,
            )
        return "\n".join(
            _line(name, one, dry_run=options["dry_run"]) for name, found in report.items() for one in found
        )


def _kinds(slug: str | None) -> list[Kind]:
    return [provisioning.kind_of(slug)] if slug else list(registry)


def _line(name: str, done: Pruned, *, dry_run: bool) -> str:
    what = done.what if name == done.what else f"{name}: {done.what}"
    oldest = f"; oldest kept {in_utc(done.oldest)}" if done.oldest else ""
    if done.before is None:
        return f"{what}: kept for ever{oldest}"
    dropped = (
        f" and {done.partitions} partition{pluralize(done.partitions)} dropped" if done.partitions else ""
    )
    verb = "would be deleted" if dry_run else "deleted"
    return f"{what}: {done.deleted} {verb}{dropped}, older than {in_utc(done.before)}{oldest}"
