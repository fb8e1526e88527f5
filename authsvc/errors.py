"""The base of the errors that authsvc raises on purpose."""

from __future__ import annotations


class AuthsvcError(Exception):
    """Something cannot be done, for a reason that its text gives to the reader. Commands print it as one line."""
