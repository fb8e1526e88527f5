"""Base64 in texts, with or without padding. Pure."""

from __future__ import annotations

import base64
import binascii

URL_SAFE = b"-_"


def decode(text: str, alternative: bytes | None = None) -> bytes:
    """Return the bytes that *text* stands for. Raise ValueError.

    Padding may be missing. *alternative* holds the two characters that stand for `+` and `/`.
    """
    padded = text if text.endswith("=") else text + "=" * (-len(text) % 4)
    try:
        data = base64.b64decode(padded.encode("ascii"), alternative, validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"{text[:40]!r} is not base64") from error
    # The decoder ignores bits behind the last byte, and with an alternative it reads the standard alphabet, too.
    if base64.b64encode(data, alternative).decode() != padded:
        raise ValueError(f"{text[:40]!r} is not base64")
    return data


def encode(data: bytes) -> str:
    """Return *data* in the standard alphabet, padded."""
    return base64.b64encode(data).decode()


def encode_url_safe(data: bytes) -> str:
    """Return *data* in the alphabet of URLs, without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
