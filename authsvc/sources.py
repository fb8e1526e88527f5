"""The tables of a directory, so that changes in them are noticed."""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """A table of the default database that principals are read from.

    *names* are its columns by which principals are looked up (usernames, client ids); *decides* are the others that a
    decision depends on. A change of any other column, such as last_seen, is not notified.
    """

    table: str
    names: tuple[str, ...]
    decides: tuple[str, ...]
