"""What a directory says of its tables, so that a change in them is noticed."""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """A table of the default database that principals are read from.

    *names* are its columns that hold what principals are looked up by (usernames, client ids); *decides* the
    others that a decision depends on. A change of any other column, such as last_seen, concerns nobody.
    """

    table: str
    names: tuple[str, ...]
    decides: tuple[str, ...]
