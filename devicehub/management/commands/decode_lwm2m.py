"""`manage.py decode_lwm2m --format FORMAT FILE`: print the values in an LwM2M payload as JSON."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from authsvc.management.command import DatabaseCommand
from devicehub.messages.json_limits import MAX_KEPT
from devicehub.messages.lwm2m import objects, paths, senml
from devicehub.messages.lwm2m.formats import FORMATS
from devicehub.messages.lwm2m.values import DataType, ObjectLink, TypeOf, total

# Beyond every time of 64 bits, so that a time counted from here is told from one that the payload names.
NOW = 2**65
NAMES = {"senml+json": senml.decode_names_json, "senml+cbor": senml.decode_names_cbor}
EXACT_INTEGERS = 2**53  # Many readers of JSON lose digits of a larger one.

Types = Mapping[tuple[int, int], DataType]


def base_path(text: str) -> str:
    """Return *text* if it is a path or empty. Raise ArgumentTypeError."""
    text = text.rstrip("/") or text[:1]
    try:
        paths.parse(text or "/")
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def types(text: str) -> Types:
    """Return the types by object and resource in a JSON object. Raise ArgumentTypeError."""
    try:
        found = json.loads(text)
        return {_ids(name): DataType(kind) for name, kind in found.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        known = ", ".join(DataType)
        raise ArgumentTypeError(
            f'types must be a JSON object such as {{"3303/5700": "Float"}}, with the types {known}'
        ) from error


def _ids(name: str) -> tuple[int, int]:
    object_id, resource_id = paths.parse("/" + name.removeprefix("/"))
    return object_id, resource_id


def types_of(given: Types) -> TypeOf:
    """Return the function that answers with the type of a resource: a given one, or that of its shipped definition."""
    return lambda object_id, resource_id: (
        given.get((object_id, resource_id)) or objects.type_of(object_id, resource_id)
    )


class Command(DatabaseCommand):
    help = (
        "Print the values in an LwM2M payload as one JSON array of [path, type, value], with the time as a fourth "
        "element if the payload names one."
    )
    requires_system_checks = ()  # Only the payload matters.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--format", required=True, choices=FORMATS, help="the content format of the payload"
        )
        parser.add_argument(
            "--base",
            type=base_path,
            default="",
            help="the path that the payload answers for, such as /3303/0; without it SenML has names, not paths",
        )
        parser.add_argument(
            "--types",
            type=types,
            default={},
            help='types of resources as JSON, such as {"33000/1": "Float"}, for objects that are not shipped',
        )
        parser.add_argument("file", help="the file that holds the payload, or - for standard input")

    def handle(self, **options: Any) -> str:
        payload = _read(options["file"])
        if not options["base"] and options["format"] in NAMES:
            rows = [
                _row(record.name, senml.PLAIN_TYPES[record.label], record.value, record.time)
                for record in NAMES[options["format"]](payload, NOW)
            ]
        else:
            base = paths.parse(options["base"] or "/")
            values = FORMATS[options["format"]].decode(payload, base, types_of(options["types"]), NOW)
            rows = [_row(paths.write(path), kind, held, time) for path, kind, held, time in values]
        return f"[{', '.join(rows)}]"


def _read(name: str) -> bytes:
    """Return the bytes of a file, of a large one only as many as show that it is too large."""
    try:
        if name == "-":
            if sys.stdin is None:
                raise CommandError("-: standard input is closed")
            return sys.stdin.buffer.read(MAX_KEPT + 1)
        with Path(name).open("rb") as file:
            return file.read(MAX_KEPT + 1)
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from error


def _row(path: str, kind: DataType, held: Any, time: Any) -> str:
    cells = [json.dumps(path), json.dumps(kind), _value(held)]
    if time is not None:
        cells.append(json.dumps(f"now{total(time, -NOW):+}") if time > NOW / 2 else str(time))
    return f"[{', '.join(cells)}]"


def _value(held: Any) -> str:
    """Return *held* as JSON: opaque bytes as hexadecimal digits, a link and a large integer as a string."""
    if isinstance(held, bytes):
        return json.dumps(held.hex())
    if isinstance(held, ObjectLink) or (isinstance(held, int) and abs(held) > EXACT_INTEGERS):
        return json.dumps(str(held))
    return str(held) if isinstance(held, Decimal) else json.dumps(held)
