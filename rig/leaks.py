"""The forms in which a secret may leak, and a handler that keeps every log record."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote


def forms_of(secret: str) -> set[str]:
    """Return the forms of *secret* in a log: plain, quoted for a URL, in hex, and in base64 at any offset."""
    raw = secret.encode()
    found = {secret, quote(secret, safe=""), raw.hex(), repr(secret)[1:-1]}
    for before in range(3):
        # The characters at both ends also hold bits of the neighbouring text.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"x" * before + raw).decode().rstrip("=")[(0, 2, 3)[before] : -1])
    return found


def leaked(text: str, secrets: Iterable[str]) -> list[str]:
    """Return the forms of *secrets* that *text* contains."""
    return [form for secret in secrets for form in forms_of(secret) if form in text]


class Everything(logging.Handler):
    """Keeps each record in every form that a handler may write: text, traceback, and all attributes."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += [self.format(record), repr(record.__dict__), record.getMessage()]
        trace = record.exc_info[2] if record.exc_info else None
        while (
            trace is not None
        ):  # rich, error trackers and Django's mails print local variables beside a traceback
            self.lines.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next


@contextmanager
def everything_logged() -> Iterator[Everything]:
    """Capture the records of all loggers at DEBUG, also of those that do not propagate to the root."""
    handler = Everything()
    kept: list[tuple[logging.Logger, int]] = []
    for name in ["", *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        kept.append((logger, logger.level))
        is_client = name.partition(".")[0] in (
            "httpx",
            "httpcore",
        )  # the client of the test may log its secrets
        logger.setLevel(logging.WARNING if is_client else logging.DEBUG)
        if not name or not logger.propagate:
            logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger, level in kept:
            logger.setLevel(level)
            logger.removeHandler(handler)
