"""Texts from outside, made storable in a database and harmless in a spreadsheet."""

from __future__ import annotations

FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
)  # A spreadsheet takes a cell that begins with one of these for a formula.


def make_storable(text: str, longest: int | None = None) -> str:
    r"""Return at most *longest* characters of *text*, with U+FFFD for NUL and "?" for half a surrogate pair.

    PostgreSQL refuses both.

    >>> make_storable("a\x00b\ud800c", 4)
    'a\ufffdb?'
    """
    if not text:
        return text
    return text[:longest].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def harmless(cell: str) -> str:
    """Return *cell* with an apostrophe in front if a spreadsheet would take it for a formula.

    >>> harmless("=1+1"), harmless("STATION-001")
    ("'=1+1", 'STATION-001')
    """
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def as_it_was(cell: str) -> str:
    """Return *cell* without the apostrophe that harmless() put in front.

    >>> as_it_was("'-1"), as_it_was("'t Hof")
    ('-1', "'t Hof")
    """
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell
