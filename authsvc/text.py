"""Texts from outside, made storable in a database."""

from __future__ import annotations


def make_storable(text: str, longest: int | None = None) -> str:
    r"""Return at most *longest* characters of *text*, with U+FFFD for NUL and "?" for half a surrogate pair.

    PostgreSQL refuses both.

    >>> make_storable("a\x00b\ud800c", 4)
    'a\ufffdb?'
    """
    if not text:
        return text
    return text[:longest].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
