"""The host and the port of a command's argument."""

from __future__ import annotations

from argparse import ArgumentTypeError


def place(text: str) -> tuple[str, int]:
    """Return host and port of `[HOST:]PORT`, with an IPv6 address in brackets. Raise ArgumentTypeError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ArgumentTypeError(f"{text!r} is not [HOST:]PORT with a port from 1 to 65535")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
