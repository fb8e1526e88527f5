"""The error of all LwM2M codecs."""

from __future__ import annotations

from devicehub.errors import DevicehubError


class CodecError(DevicehubError):
    """A payload cannot be read, or values cannot be written.

    *position* is a byte, a record or a path, such as "byte 7"; *reason* is the rest of the sentence. Both may quote the
    payload: characters that would break the line, or drive a terminal, are escaped.
    """

    def __init__(self, position: str, reason: str) -> None:
        self.position = _in_one_line(position)
        self.reason = _in_one_line(reason)
        super().__init__(f"{self.position}: {self.reason}")


def _in_one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
