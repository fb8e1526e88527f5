"""Texts as literals of the languages of the snippets and downloads. Pure."""

from __future__ import annotations

import shlex


def in_shell(text: str) -> str:
    """Return *text* as one word of a shell. Most are unchanged, so that other readers of .env files understand them.

    >>> in_shell("STATION-001"), in_shell("it's")
    ('STATION-001', '\\'it\\'"\\'"\\'s\\'')
    """
    return shlex.quote(text)


def in_python(text: str) -> str:
    """Return *text* as a literal of Python.

    >>> print(in_python('{"a": 1}'))
    '{"a": 1}'
    """
    return repr(text)


def in_c(text: str) -> str:
    r"""Return *text* as a literal of C and C++, in ASCII: other characters are the octal numbers of their UTF-8.

    Octal numbers end after three digits, hexadecimal ones do not. A question mark could begin a trigraph.

    >>> in_c('a"b\\?'), in_c("é1")
    ('"a\\"b\\\\\\?"', '"\\303\\2511"')
    """
    return f'"{"".join(_c_byte(byte) for byte in text.encode())}"'


def _c_byte(byte: int) -> str:
    character = chr(byte)
    if character in '"\\?':
        return f"\\{character}"
    return character if 0x20 <= byte < 0x7F else f"\\{byte:03o}"
