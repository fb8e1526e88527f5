"""The fault of a payload that is not JSON, in words for the author of a firmware. Pure."""

from __future__ import annotations

from json import JSONDecodeError

from devicehub.messages.message import MAX_DEPTH

TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
TRAILING = "Illegal trailing comma"
VALUE = "a value is missing (a number, a text in double quotes, true, false, null, a list or an object)"
# The beginnings of the texts of Python's parser, and the same in words.
WORDS = {
    "Expecting value": VALUE,
    "Expecting property name": "a name in double quotes is missing",
    "Expecting ':'": "a colon is missing behind the name",
    "Expecting ','": "a comma is missing, or the bracket that closes the list or object",
    TRAILING: "no comma may stand behind the last entry of a list or object",
    "Unterminated string": "the text that begins here has no closing double quote",
    "Invalid control character": "a text holds a line break or another control character; write it as \\n or \\u000a",
    "Invalid \\": "a text holds a backslash with characters that JSON does not have",
    "Extra data": "more bytes follow after the end of the JSON",
}
OTHER = "it cannot be read as JSON"


def in_words(error: Exception, *, before: int = 0) -> str:
    """Return the reason of *error*, which the parser raised, and its place; *before* bytes precede the parsed text.

    >>> in_words(JSONDecodeError("Extra data", '{"amount": 1}x', 13))
    'not JSON at byte 14, "x": more bytes follow after the end of the JSON'
    """
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if isinstance(error, UnicodeDecodeError):
        place, found = before + error.start + 1, error.object[error.start]
        return f"not UTF-8 at byte {place}, 0x{found:02x}: JSON must be UTF-8"
    if not isinstance(error, JSONDecodeError):
        return OTHER
    fault, at = _fault(error)
    place = before + len(error.doc[:at].encode()) + 1
    if at >= len(error.doc):
        return f"the payload is cut off after byte {place - 1}: {fault}"
    number = error.doc.count("\n", 0, at) + 1
    line = f" in line {number}" if number > 1 else ""
    return f"not JSON at byte {place}{line}, {_shown(error.doc[at])}: {fault}{_hint(error)}"


def _fault(error: JSONDecodeError) -> tuple[str, int]:
    """Return the words for *error*, and its place: that of a last comma is the comma, in each version of Python."""
    earlier = error.doc[: error.pos].rstrip()
    if error.doc[error.pos : error.pos + 1] in ("}", "]") and earlier.endswith(","):
        return WORDS[TRAILING], len(earlier) - 1
    return next((words for begin, words in WORDS.items() if error.msg.startswith(begin)), OTHER), error.pos


def _shown(character: str) -> str:
    """Return the one *character* at the place, by its number if it cannot be seen."""
    return f'"{character}"' if character.isprintable() and character != " " else f"U+{ord(character):04X}"


def _hint(error: JSONDecodeError) -> str:
    """Return a remark on frequent mistakes."""
    here = error.doc[error.pos]
    if here == "'":
        return "; use double quotes"
    if here in "nNiI" and error.msg.startswith("Expecting value"):
        return "; write a number that is not known as null, or leave it out"
    return ""
