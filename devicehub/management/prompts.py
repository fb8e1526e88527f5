"""Ask for a password: never as an argument, which every process of the machine can read."""

from __future__ import annotations

import getpass
import sys

from django.core.management.base import CommandError


def read_password() -> str:
    """A password typed twice at the terminal, or the first line of standard input where that is none."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("New password: ")
    if password != getpass.getpass("Again: "):
        raise CommandError("The two are not the same; nothing was changed")
    return password
