"""CoRE link format (RFC 6690), in which an endpoint registers its objects. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from devicehub.messages.json_limits import MAX_KEPT
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.errors import CodecError

SPACE = re.compile(r"[ \t\r\n]*")
TARGET = re.compile(r"<([^<>]*)>")
NAME = re.compile(r"[A-Za-z0-9!#$&+.^_`|~*-]+")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
TOKEN = re.compile(r'[^\s",;]+')
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
TO_ESCAPE = re.compile(r'(["\\])')
BARE = re.compile(r"[0-9.]+")  # Written without quotes: numbers and versions.
VERSION = re.compile(r"[0-9]{1,5}\.[0-9]{1,5}")
ROOT_TYPE = "oma.lwm2m"
MOST_LINKS = 1 << 14


class Link(NamedTuple):
    """One link. The value of an attribute is without its quotes; None for an attribute without a value."""

    url: str
    attributes: Mapping[str, str | None]


class Objects(NamedTuple):
    """The objects that links name: versions by object id, where one is named, and instance ids by object id.

    *root* is the path below which the objects lie; *formats* are the content formats that the endpoint names.
    """

    root: str
    formats: tuple[int, ...]
    versions: dict[int, str]
    instances: dict[int, list[int]]


def parse(text: str) -> list[Link]:
    """Return the links in *text*. The first attribute of a name counts. Raise CodecError."""
    if len(text) > MAX_KEPT:
        raise CodecError(f"character {MAX_KEPT}", f"the links have more than {MAX_KEPT} characters")
    links: list[Link] = []
    position = _skip(text, 0)
    while position < len(text) or links:
        target = TARGET.match(text, position)
        if not target:
            raise CodecError(f"character {position}", "is not a link such as </3/0>")
        attributes: dict[str, str | None] = {}
        if len(links) == MOST_LINKS:
            raise CodecError(f"character {position}", f"there are more than {MOST_LINKS} links")
        position = _skip(text, target.end())
        while text.startswith(";", position):
            name, value, position = _attribute(text, _skip(text, position + 1))
            attributes.setdefault(name, value)
        links.append(Link(target[1], attributes))
        if position == len(text):
            break
        if text[position] != ",":
            raise CodecError(f"character {position}", "a comma must stand between links")
        position = _skip(text, position + 1)
    return links


def _skip(text: str, position: int) -> int:
    found = SPACE.match(text, position)
    return found.end() if found else position


def _attribute(text: str, position: int) -> tuple[str, str | None, int]:
    """Return name and value of the attribute at *position*, and the position behind it."""
    name = NAME.match(text, position)
    if not name:
        raise CodecError(f"character {position}", "is not the name of an attribute")
    position = _skip(text, name.end())
    if not text.startswith("=", position):
        return name[0], None, position
    position = _skip(text, position + 1)
    quoted = QUOTED.match(text, position)
    if quoted:
        return name[0], ESCAPED.sub(r"\1", quoted[1]), _skip(text, quoted.end())
    token = TOKEN.match(text, position)
    if not token:
        raise CodecError(f"character {position}", f"the attribute {name[0][:40]} has no value")
    return name[0], token[0], _skip(text, token.end())


def write(links: Iterable[Link]) -> str:
    """Return *links* as text.

    >>> write([Link("/3303", {"ver": "1.1"}), Link("/3303/0", {})])
    '</3303>;ver=1.1,</3303/0>'
    """
    return ",".join(f"<{link.url}>{''.join(map(_written, link.attributes.items()))}" for link in links)


def _written(attribute: tuple[str, str | None]) -> str:
    name, value = attribute
    if value is None:
        return f";{name}"
    if BARE.fullmatch(value):
        return f";{name}={value}"
    escaped = TO_ESCAPE.sub(r"\\\1", value)
    return f';{name}="{escaped}"'


def objects(links: Iterable[Link]) -> Objects:
    """Return the objects that *links* name. Raise CodecError if they contradict each other.

    Links to anything else are ignored. A version may stand at the object, or at one of its instances.
    """
    found = list(links)
    roots = [link for link in found if ROOT_TYPE in (link.attributes.get("rt") or "").split()]
    root = roots[0].url if roots else "/"
    formats = tuple(
        int(number)
        for number in ((roots[0].attributes.get("ct") or "") if roots else "").split()
        if number.isascii() and number.isdigit() and len(number) <= 5
    )
    versions: dict[int, str] = {}
    instances: dict[int, dict[int, None]] = {}
    above = root.rstrip("/")
    for link in found:
        if not link.url.startswith(above + "/"):
            continue
        try:
            path = paths.parse(link.url[len(above) :])
        except ValueError:
            continue
        if not path:
            continue
        known = instances.setdefault(path[0], {})
        if len(path) > 1:
            known[path[1]] = None
        version = link.attributes.get("ver")
        if version is not None:
            if not VERSION.fullmatch(version):
                raise CodecError(link.url, f"{version[:40]!r} is not a version such as 1.1")
            if versions.setdefault(path[0], version) != version:
                raise CodecError(link.url, f"object {path[0]} has two versions")
    return Objects(root, formats, versions, {number: list(known) for number, known in instances.items()})
