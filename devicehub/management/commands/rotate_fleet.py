"""`manage.py rotate_fleet NAME`: give many devices new credentials as a set that can be watched."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from authsvc.credentials import UNTIL_USED
from authsvc.durations import duration
from authsvc.management.command import ReasonedCommand
from devicehub import provisioning
from devicehub.bulk import rotations, selection
from devicehub.kinds.registry import registry
from devicehub.management.credentials_output import credentials_output
from devicehub.models import Rotation

ACTS = ("again", "finish", "roll_back", "show")


class Command(ReasonedCommand):
    help = "Give many devices new passwords, written to one file, and follow the change to its end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", help="a name for a new rotation, such as spring")
        parser.add_argument("--type", action="append", help="only devices of this type; may be repeated")
        parser.add_argument("--site", action="append", help="only devices at this site; may be repeated")
        parser.add_argument("--group", default="", help="only devices of this group")
        parser.add_argument(
            "--output", help="a new file, CSV if its name ends in .csv, or - for standard output"
        )
        until = parser.add_mutually_exclusive_group()
        until.add_argument(
            "--overlap", type=duration, help="how long the old passwords stay valid, such as 7d"
        )
        until.add_argument(
            "--until-used",
            action="store_true",
            help="each old password ends when the new one is first used (default)",
        )
        until.add_argument("--now", action="store_true", help="the old passwords end now")
        parser.add_argument(
            "--api-keys", action="store_true", help="replace the API keys too; the old ones end now"
        )
        act = parser.add_mutually_exclusive_group()
        act.add_argument(
            "--again", type=int, metavar="NUMBER", help="new passwords for those that have not used theirs"
        )
        act.add_argument(
            "--finish", type=int, metavar="NUMBER", help="end the old passwords of this rotation"
        )
        act.add_argument(
            "--roll-back", type=int, metavar="NUMBER", help="restore the old passwords that are still valid"
        )
        act.add_argument(
            "--show", type=int, metavar="NUMBER", help="print the progress of this rotation as JSON"
        )

    def handle(self, **options: Any) -> str | None:
        act = next((name for name in ACTS if options[name] is not None), None)
        if (act is None) == (options["name"] is None):
            raise CommandError(
                "Give a name for a new rotation, or one of --again, --finish, --roll-back, --show"
            )
        if act in (None, "again") and not options["output"]:
            raise CommandError("--output is needed: a new file for the credentials, or - for standard output")
        if act is None:
            self._issue(_new, options)
            return None
        rotation = Rotation.objects.filter(pk=options[act]).first()
        if rotation is None:
            raise CommandError(f"There is no rotation {options[act]}")
        if act == "again":
            self._issue(lambda _: rotation, options)
            return None
        if act == "show":
            return json.dumps({"name": rotation.name, **asdict(rotations.progress(rotation.members.all()))})
        return _end(rotation, act)

    def _issue(self, rotation_of: Any, options: dict[str, Any]) -> None:
        with credentials_output(options["output"]) as output:
            rotation = rotation_of(options)
            if not rotations.claim(rotation):
                raise CommandError("This rotation has ended, or another process writes its file now")
            for _ in rotations.issue(rotation, rotation.members.all(), before_commit=output.add):
                pass
        self.stderr.write(f"Rotation {rotation.pk}: {output.count} new passwords")


def _new(options: dict[str, Any]) -> Rotation:
    kinds = [provisioning.kind_of(slug) for slug in options["type"] or ()] or list(registry)
    every = [(kind, kind.device_model.objects.all()) for kind in kinds]
    chosen = selection.narrow(every, sites=options["site"] or (), group=options["group"])
    return rotations.start(options["name"], chosen, until=_until(options), api_keys=options["api_keys"])


def _until(options: dict[str, Any]) -> datetime | None:
    if options["now"]:
        return None
    return timezone.now() + options["overlap"] if options["overlap"] else UNTIL_USED


def _end(rotation: Rotation, act: str) -> str:
    members = rotation.members.all()
    if act == "finish":
        count = rotations.finish(rotation, members)
        rotations.close(rotation, "rotation_finished", count)
        return f"{count} old passwords ended"
    count = rotations.roll_back(rotation, members)
    rotations.close(rotation, "rotation_rolled_back", count)
    return f"{count} old passwords restored"
