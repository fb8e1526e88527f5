"""`python -m rig.data_model` writes the entity relationship diagrams of docs/reference/data-model.md from the models.

Each diagram is text of Mermaid, which code hosts and editors draw, with a table of its models after it. The rest of
the page is written by hand.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.db import models

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rig.settings")
if not apps.ready:
    django.setup()

from devicehub.models import BaseDevice, BaseMessage

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/data-model.md"
COMMAND = "python -m rig.data_model"
MARK = "<!-- not run: a drawing; tests/project/test_data_model.py compares it with the models -->"
# The models of each diagram; a name of an app stands for all of its models.
DIAGRAMS = {
    "lwm2m": ("lwm2m",),
    "typed": (
        "fleet.WeatherStationDevice", "fleet.WeatherStationReading", "fleet.WeatherStationMessage",
        "devicehub",
    ),
    "authsvc": ("authsvc",),
}  # fmt: skip
SHORT = frozenset({"lwm2m"})
SHOWN = frozenset({"id", "device_id", "device", "digest", "outcome"})
TYPES = {
    "AutoField": "integer", "BigAutoField": "bigint", "BigIntegerField": "bigint", "IntegerField": "integer",
    "PositiveIntegerField": "integer", "PositiveSmallIntegerField": "integer", "SmallIntegerField": "integer",
    "PositiveBigIntegerField": "bigint", "FloatField": "float", "BooleanField": "boolean", "CharField": "varchar",
    "SlugField": "varchar", "TextField": "text", "JSONField": "json", "BinaryField": "bytes", "DateTimeField": "time",
    "DateField": "date", "DurationField": "interval", "UUIDField": "uuid", "GenericIPAddressField": "inet",
    "ForeignKey": "bigint", "OneToOneField": "bigint",
}  # fmt: skip


def chosen(labels: Iterable[str]) -> list[type[models.Model]]:
    """Return the models that *labels* name, in their order."""
    found: list[type[models.Model]] = []
    for label in labels:
        app, _, name = label.partition(".")
        found += [apps.get_model(app, name)] if name else list(apps.get_app_config(app).get_models())
    return found


def drawing(entities: Sequence[type[models.Model]], *, is_short: bool = False) -> str:
    """Return the diagram of *entities* as text of Mermaid; if *is_short*, without most columns of every device type."""
    lines = ["erDiagram"]
    for model in entities:
        for field in model._meta.concrete_fields:
            if field.is_relation and field.related_model in entities:
                lines.append(f"    {_relation(model, field)}")
    for model in entities:
        lines.append(f"    {model.__name__} {{")
        lines += [
            f"        {_column(model, field)}"
            for field in model._meta.concrete_fields
            if not (is_short and _is_of_every_type(model, field.name))
        ]
        lines.append("    }")
    return "\n".join(lines)


def _is_of_every_type(model: type[models.Model], name: str) -> bool:
    return name not in SHOWN and any(
        issubclass(model, base) and name in {field.name for field in base._meta.fields}
        for base in (BaseDevice, BaseMessage)
    )


def _relation(model: type[models.Model], field: Any) -> str:
    """Return the line from the referenced model to *model*; it is dotted if the database does not check the key."""
    one = "|o" if field.null else "||"
    line = "--" if field.db_constraint else ".."
    many = "o|" if field.unique else "o{"
    return f'{field.related_model.__name__} {one}{line}{many} {model.__name__} : "{field.name}"'


def _column(model: type[models.Model], field: Any) -> str:
    kind = next(
        (TYPES[c.__name__] for c in type(field).__mro__ if c.__name__ in TYPES), field.get_internal_type()
    )
    keys = [
        word
        for word, holds in (
            ("PK", field.primary_key),
            ("FK", field.is_relation),
            ("UK", field.unique and not field.primary_key),
        )
        if holds
    ]
    parts = [kind, field.column, ", ".join(keys), '"null"' if field.null else ""]
    return " ".join(part for part in parts if part)


def table(entities: Sequence[type[models.Model]]) -> str:
    """Return a table of *entities*: its name in SQL, its unique columns, and the first sentence of its docstring."""
    lines = ["| model | table | unique together | a row is |", "|---|---|---|---|"]
    for model in entities:
        together = [
            " + ".join(one.fields)
            for one in model._meta.constraints
            if isinstance(one, models.UniqueConstraint) and one.fields
        ]
        together += [" + ".join(names) for names in model._meta.unique_together]
        lines.append(
            f"| `{model.__name__}` | `{model._meta.db_table}` | {', '.join(together)} | {_sentence(model)} |"
        )
    return "\n".join(lines)


def _sentence(model: type[models.Model]) -> str:
    """Return the first sentence of the docstring that *model* or its base has; Django makes others up."""
    made_up = f"{model.__name__}({', '.join(field.name for field in model._meta.fields)})"
    given = model.__doc__ if model.__doc__ and model.__doc__ != made_up else ""
    text = given or next((base.__doc__ for base in model.__mro__[1:] if base.__doc__), "")
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0].rstrip(".")


def section(name: str) -> str:
    """Return the generated part of the page that is called *name*."""
    entities = chosen(DIAGRAMS[name])
    drawn = drawing(entities, is_short=name in SHORT)
    return f"{_begin(name)}\n{MARK}\n```mermaid\n{drawn}\n```\n\n{table(entities)}\n{_end(name)}"


def _begin(name: str) -> str:
    return f"<!-- diagram {name}: written by {COMMAND} -->"


def _end(name: str) -> str:
    return f"<!-- end of diagram {name} -->"


def renewed(text: str) -> str:
    """Return the *text* of the page with its diagrams as the models are."""
    for name in DIAGRAMS:
        before, _, rest = text.partition(_begin(name))
        _, found, after = rest.partition(_end(name))
        if not found:
            raise SystemExit(f"{PAGE.name} has no place for the diagram {name}: {_begin(name)} {_end(name)}")
        text = f"{before}{section(name)}{after}"
    return text


def main() -> int:
    """Write the diagrams of the page."""
    PAGE.write_text(renewed(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
