"""The error of all LwM2M codecs."""

from __future__ import annotations

from devicehub.errors import DevicehubError


class CodecError(DevicehubError):
    """A payload cannot be read, or values cannot be written.

    *position* is a byte, a record or a path, such as "byte 7"; *reason* is the rest of the sentence.
    """

    def __init__(self, position: str, reason: str) -> None:
        super().__init__(f"{position}: {reason}")
        self.position = position
        self.reason = reason
