"""Object definitions in the XML of the OMA registry (LWM2M.xsd and LWM2M-v1_1.xsd). Pure."""

from __future__ import annotations

import re
from itertools import pairwise
from operator import attrgetter
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder  # Parsing is defusedxml's.

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from devicehub.errors import DevicehubError
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.objects import (
    FIRST_VERSION,
    ObjectDefinition,
    ResourceDefinition,
    order,
)
from devicehub.messages.lwm2m.values import DataType

MAX_BYTES = 2 << 20  # The largest file of the registry has 80 KB.
MAX_DEPTH = 32
MOST_OBJECTS = 64
MOST_RESOURCES = 1000  # Of one object; the registry's largest has 104.
# The lengths that tables hold. Longer texts are cut, since only people read their ends.
LONGEST_LINE = 255
LONGEST_UNIT = 64
LONGEST_TEXT = 20_000
LONGEST_NOTICE = 20_000

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANKS = re.compile(r"[^\S\n]+")
BETWEEN = re.compile(r"[ ,/]")  # Operations are letters beside each other, or with one of these between them.
NUMBER = re.compile(r"[0-9]{1,5}")
SHORT_VERSION = re.compile(r"[0-9]{1,5}")
URN_VERSION = re.compile(r"urn:oma:lwm2m:[a-z]+:[0-9]+:([0-9.]+)", re.IGNORECASE)
OPERATIONS = {"": "", "R": "R", "W": "W", "RW": "RW", "WR": "RW", "E": "E", "NONE": "", "-": ""}
TYPES = {kind.lower().replace(" ", ""): kind for kind in DataType}
NO_TYPES = ("", "none", "execute", "-", "n/a")
MULTIPLE = {"multiple": True, "single": False}
MANDATORY = {"mandatory": True, "optional": False}


class InvalidObjectXml(DevicehubError):
    """A file does not define LwM2M objects, for the reason in the text."""


class _Builder(TreeBuilder):
    """Build the tree of a file without comments, which are kept aside. Nested elements are limited."""

    def __init__(self) -> None:
        super().__init__()
        self.comments: list[str] = []
        self._depth = 0

    def start(self, tag: Any, attrs: Any, /) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidObjectXml(f"elements are nested more than {MAX_DEPTH} deep")
        return super().start(tag, attrs)

    def end(self, tag: Any, /) -> Any:
        self._depth -= 1
        return super().end(tag)

    def comment(self, text: Any, /) -> Any:
        self.comments.append(text)


def parse(content: bytes, origin: str = "") -> tuple[ObjectDefinition, ...]:
    """Return the objects that a file defines, in its order. Raise InvalidObjectXml.

    A file may define several objects, or several versions of one. Texts lose blanks around their lines. The notice
    of the objects is the comment with the licence, or all comments.
    """
    check_size(len(content))
    root, notice = _tree(content)
    if _name(root) != "LWM2M":
        raise InvalidObjectXml(f"the root element is {_shown(_name(root))}, not LWM2M")
    elements = _children(root, "Object")
    if not any(_children(element, "ObjectID") for element in elements):  # Also a list of reusable resources.
        raise InvalidObjectXml("the file defines no object")
    if len(elements) > MOST_OBJECTS:
        raise InvalidObjectXml(f"the file defines more than {MOST_OBJECTS} objects")
    found = tuple(_object(element, origin, notice) for element in elements)
    if len({definition.key for definition in found}) < len(found):
        raise InvalidObjectXml("the file defines an object in one version twice")
    return found


def check_size(size: int) -> None:
    """Raise InvalidObjectXml if a file of *size* bytes is larger than any that is read."""
    if size > MAX_BYTES:
        raise InvalidObjectXml(f"the file has more than {MAX_BYTES} bytes")


def _tree(content: bytes) -> tuple[Element, str]:
    """Return the root element and the notice of a file."""
    builder = _Builder()
    parser = DefusedXMLParser(target=builder, forbid_dtd=True)
    try:
        # Some files have blanks before the declaration, or more than one mark of the byte order.
        parser.feed(content.lstrip(BYTE_ORDER_MARK + b" \t\r\n"))
        root: Element = parser.close()
    except DefusedXmlException as error:
        raise InvalidObjectXml("the file declares a document type or entities, which are refused") from error
    except ParseError as error:
        raise InvalidObjectXml(f"the file is not XML: {error}") from error
    except (ValueError, LookupError) as error:
        raise InvalidObjectXml("the file is not XML in an encoding that can be read") from error
    comments = [_text(comment) for comment in builder.comments]
    licences = [comment for comment in comments if "redistribution" in comment.lower()]
    return root, "\n\n".join(licences or comments)[:LONGEST_NOTICE]


def _object(element: Element, origin: str, notice: str) -> ObjectDefinition:
    object_id = _id(_line(element, "ObjectID"), "the id of the object")
    where = f"object {object_id}"
    urn = _line(element, "ObjectURN")
    items = _children(_child(element, "Resources", where), "Item")
    if len(items) > MOST_RESOURCES:
        raise InvalidObjectXml(f"{where} has more than {MOST_RESOURCES} resources")
    resources = sorted((_resource(item, where) for item in items), key=attrgetter("resource_id"))
    for one, other in pairwise(resources):
        if one.resource_id == other.resource_id:
            raise InvalidObjectXml(f"{where} has resource {one.resource_id} twice")
    return ObjectDefinition(
        object_id,
        _version(_line(element, "ObjectVersion") or _version_in(urn), where),
        _title(element, where),
        _description(element, "Description1", "Description2"),
        urn,
        _version(_line(element, "LWM2MVersion"), where),
        _flag(element, "MultipleInstances", MULTIPLE, where),
        _flag(element, "Mandatory", MANDATORY, where),
        tuple(resources),
        origin,
        notice,
    )


def _resource(item: Element, above: str) -> ResourceDefinition:
    number = next((held for name, held in item.attrib.items() if name.upper() == "ID"), "")
    resource_id = _id(number.strip() or _line(item, "ResourceID"), f"{above}: the id of a resource")
    where = f"{above}, resource {resource_id}"
    operations = OPERATIONS.get(BETWEEN.sub("", _line(item, "Operations").upper()))
    if operations is None:
        raise InvalidObjectXml(f"{where}: {_shown(_line(item, 'Operations'))} is none of R, W, RW and E")
    return ResourceDefinition(
        resource_id,
        _title(item, where),
        _type(_line(item, "Type"), operations, where),
        operations,
        _flag(item, "MultipleInstances", MULTIPLE, where),
        _flag(item, "Mandatory", MANDATORY, where),
        _line(item, "RangeEnumeration"),
        _line(item, "Units", LONGEST_UNIT),
        _description(item, "Description"),
    )


def _type(text: str, operations: str, where: str) -> DataType | None:
    """Return the type that *text* names. An executable resource has none, and some others have none by mistake."""
    known = TYPES.get(text.lower().replace(" ", ""))
    if not known and text.lower() not in NO_TYPES:
        raise InvalidObjectXml(f"{where}: {_shown(text)} is not a type of LwM2M")
    return None if operations == "E" else known


def _id(text: str, subject: str) -> int:
    if not (NUMBER.fullmatch(text) and int(text) <= paths.MAX_ID):
        raise InvalidObjectXml(f"{subject} is {_shown(text)}, not a number from 0 to {paths.MAX_ID}")
    return int(text)


def _version(text: str, where: str) -> str:
    """Return the version in its usual form; 1.0 if *text* is empty, and 2.0 for 2."""
    if SHORT_VERSION.fullmatch(text):
        text = f"{text}.0"
    try:
        major, minor = order(text or FIRST_VERSION)
    except ValueError as error:
        raise InvalidObjectXml(f"{where}: {error}") from error
    return f"{major}.{minor}"


def _version_in(urn: str) -> str:
    found = URN_VERSION.fullmatch(urn)
    return found[1] if found else ""


def _flag(element: Element, name: str, meanings: dict[str, bool], where: str) -> bool:
    text = _line(element, name)
    meaning = meanings.get(text.lower())
    if meaning is None:
        raise InvalidObjectXml(
            f"{where}: {name} is {_shown(text)}, not {' or '.join(map(str.title, meanings))}"
        )
    return meaning


def _title(element: Element, where: str) -> str:
    name = _line(element, "Name")
    if not name:
        raise InvalidObjectXml(f"{where} has no name")
    return name


def _description(element: Element, *names: str) -> str:
    return _cut("\n\n".join(filter(None, (_text(_content(element, name)) for name in names))), LONGEST_TEXT)


def _line(element: Element, name: str, longest: int = LONGEST_LINE) -> str:
    """Return the text of a child in one line of printable characters; empty if there is no such child."""
    text = " ".join(_content(element, name).split())
    return _cut(text if text.isprintable() else "".join(filter(str.isprintable, text)), longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _text(text: str) -> str:
    """Return *text* without blanks around its lines, and without empty lines at both ends."""
    return "\n".join(BLANKS.sub(" ", line).strip() for line in text.splitlines()).strip()


def _content(element: Element, name: str) -> str:
    found = _children(element, name)
    return "".join(found[0].itertext()) if found else ""


def _child(element: Element, name: str, where: str) -> Element:
    found = _children(element, name)
    if not found:
        raise InvalidObjectXml(f"{where} has no element {name}")
    return found[0]


def _children(element: Element, name: str) -> list[Element]:
    return [child for child in element if _name(child) == name]


def _name(element: Element) -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _shown(text: str) -> str:
    return repr(text[:40]) if text else "empty"
