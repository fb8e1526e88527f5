"""Prompts for a password. It is never an argument, since every process of the machine can read arguments."""

from __future__ import annotations

import getpass
import sys

from django.core.management.base import CommandError


def read_password() -> str:
    """Return a password typed twice at the terminal, or the first line of standard input if there is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("New password: ")
    if password != getpass.getpass("Again: "):
        raise CommandError("The two passwords differ; nothing was changed. Run the command again")
    return password
