"""The base of the errors that devicehub raises on purpose."""

from __future__ import annotations

from authsvc.errors import AuthsvcError


class DevicehubError(AuthsvcError):
    """Something cannot be done, for a reason that its text gives to the reader. Commands print it as one line."""
