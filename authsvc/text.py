"""Texts from outside, made storable in a database and harmless in a spreadsheet, and times as texts."""

from __future__ import annotations

from datetime import UTC, datetime

FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
)  # A spreadsheet takes a cell that begins with one of these for a formula.


def in_utc(moment: datetime) -> str:
    """Return *moment* as all pages and commands write a time: to the second, with its zone.

    >>> in_utc(datetime(2026, 12, 1, 6, 3, 41, tzinfo=UTC))
    '2026-12-01 06:03:41 UTC'
    """
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


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
