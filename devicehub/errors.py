"""The base of the errors that devicehub raises on purpose."""

from __future__ import annotations

from authsvc.errors import AuthsvcError


class DevicehubError(AuthsvcError):
    """An action is impossible, for the reason in the text. Commands print it as one line."""
