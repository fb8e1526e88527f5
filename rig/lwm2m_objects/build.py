"""Write the object definitions that devicehub ships: `python -m rig.lwm2m_objects.build JAR...`.

Each JAR holds files of the OMA registry in models/. Only files whose notice has the text of the BSD licence are
shipped. If two of them define the same object in the same version, the one of the earlier JAR counts. The files of
`described/` add objects that no JAR has, in words of ours.
"""

from __future__ import annotations

import argparse
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from devicehub.lwm2m import object_xml
from devicehub.messages.lwm2m.objects import SHIPPED, Key, ObjectDefinition, order, pack

DESCRIBED = Path(__file__).with_name("described")
NOTICE = SHIPPED.with_name("NOTICE")
OWN_ORIGIN = "described for devicehub from published facts"
# Both sentences of the licence: its permission, and its disclaimer.
PERMISSION = "Redistribution and use in source and binary forms"
DISCLAIMER = "IN NO EVENT SHALL THE"
COPYRIGHT = re.compile(r"^.*copyright\b.*\d{4}.*$", re.IGNORECASE | re.MULTILINE)
INTRODUCTION = """\
objects.json.gz holds definitions of LwM2M objects, made from files of the OMA registry
by `python -m rig.lwm2m_objects.build`. The names, texts and numbers are those of the files; blanks around
lines are removed. The complete notice of each file is in the data too.

The copyright notices and licences of these files follow, each licence with the objects it applies to, as
object/version.
"""


def is_licensed(definition: ObjectDefinition) -> bool:
    """Return whether the notice of a file has the text of the BSD licence."""
    text = " ".join(definition.notice.split())
    return PERMISSION in text and DISCLAIMER in text


def in_archives(archives: Iterable[Path]) -> Iterator[ObjectDefinition]:
    """Yield the definitions in models/ of *archives* whose licence permits to ship them."""
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if re.fullmatch(r"models/[^/]+\.xml", name)]
            for name in sorted(names):
                origin = f"{archive.stem}, {name}"
                yield from filter(is_licensed, object_xml.parse(opened.read(name), origin))


def described() -> Iterator[ObjectDefinition]:
    """Yield the definitions in words of ours. They have no notice: the licence of devicehub applies."""
    for file in sorted(DESCRIBED.glob("*.xml")):
        for definition in object_xml.parse(file.read_bytes(), OWN_ORIGIN):
            yield definition._replace(notice="")


def selected(archives: Iterable[Path]) -> list[ObjectDefinition]:
    """Return the definitions to ship, sorted."""
    found: dict[Key, ObjectDefinition] = {}
    for definition in (*in_archives(archives), *described()):
        found.setdefault(definition.key, definition)
    return [found[key] for key in sorted(found, key=lambda key: (key[0], order(key[1])))]


def notice_of(definitions: Iterable[ObjectDefinition]) -> str:
    """Return the text of NOTICE: each licence once, with the copyright lines and the objects they apply to."""
    licences: dict[str, dict[str, list[str]]] = {}
    for definition in definitions:
        if not definition.notice:
            continue
        above, found, below = definition.notice.partition(PERMISSION)
        owners = " ".join(line.strip() for line in COPYRIGHT.findall(above))
        objects = licences.setdefault(" ".join((found + below).split()), {})
        objects.setdefault(owners, []).append(f"{definition.object_id}/{definition.version}")
    parts = [INTRODUCTION]
    for terms, named in sorted(
        licences.items(), key=lambda item: (-sum(map(len, item[1].values())), item[0])
    ):
        parts.append("=" * 72)
        parts += [
            f"{_wrapped(owner)}\n\n{_wrapped(', '.join(named[owner]), '    ')}\n" for owner in sorted(named)
        ]
        parts.append(_wrapped(terms) + "\n")
    return "\n".join(parts)


def _wrapped(text: str, indent: str = "") -> str:
    """Return *text* in lines of at most 100 characters."""
    lines = [indent]
    for word in text.split():
        if len(lines[-1]) + len(word) > 100:
            lines.append(indent)
        lines[-1] += word if lines[-1] == indent else f" {word}"
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Write the data file and its NOTICE, and report their objects."""
    parser = argparse.ArgumentParser(description="Write the object definitions that devicehub ships.")
    parser.add_argument("archives", nargs="+", type=Path, metavar="JAR", help="a JAR with models/*.xml")
    definitions = selected(parser.parse_args(arguments).archives)
    SHIPPED.write_bytes(pack(definitions))
    NOTICE.write_text(notice_of(definitions))
    objects = len({definition.object_id for definition in definitions})
    sys.stdout.write(f"{objects} objects in {len(definitions)} versions, {SHIPPED.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
